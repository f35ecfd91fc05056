"""How the page looks, in light and in dark."""

STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #ffffff; --ink: #1b2330; --soft: #5b6575; --line: #dde2ea;
  --band: #f1f4f8; --added: #1d5fd1; --inherited: #9a6b00; --bound: #6b7686; --bad: #c62838; --good: #17794a; --code: #eef1f5; }
@media (prefers-color-scheme: dark) { :root { --back: #12161c; --card: #1a2029; --ink: #e6eaf0; --soft: #9aa5b5; --line: #2d3644;
  --band: #202834; --added: #74a7ff; --inherited: #e0ac45; --bound: #8994a5; --bad: #ff7480; --good: #55c58d; --code: #252e3a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 48px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 0 0 16px; }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere; } h2 { font-size: 17px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 16px 0 6px; } p { margin: 6px 0; max-width: 80ch; }
a { color: var(--added); overflow-wrap: anywhere; }
code { background: var(--code); border-radius: 4px; padding: 1px 5px; font: 13px ui-monospace, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.soft { color: var(--soft); } .bad { color: var(--bad); } .good { color: var(--good); } .strong { font-weight: 600; }
.badge { display: inline-block; border: 2px solid currentColor; border-radius: 6px; padding: 0 10px;
  font-weight: 700; margin-right: 8px; }
.counts { display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 12px 0 0; padding: 0; list-style: none; }
.counts b { display: block; font-size: 22px; line-height: 1.2; }
.cause { border-left: 4px solid var(--bad); padding-left: 14px; margin-top: 12px; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 4px 10px; align-items: center; max-width: 640px;
  margin: 10px 0; font-size: 14px; }
.bars i { display: block; height: 12px; border-radius: 3px; min-width: 2px; }
figure { margin: 0; } figcaption { font-size: 13px; color: var(--soft); }
.panels { display: grid; grid-template-columns: repeat(3, minmax(0, 220px)); gap: 10px 14px; margin: 8px 0 14px; }
.panels img, .heat img { width: 100%; display: block; border: 1px solid var(--line); border-radius: 4px;
  image-rendering: pixelated; }
.heat { flex: 1 1 240px; max-width: 340px; margin-top: 8px; } .beside { display: flex; flex-wrap: wrap; gap: 10px 24px; }
.beside .panels { flex: 3 1 300px; } .panels figcaption, .heat figcaption { overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 12px; font-family: inherit; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 13px; color: var(--soft); margin: 0 0 8px; }
.legend svg { width: 26px; height: 12px; display: inline-block; vertical-align: middle; margin-right: 5px; }
details { border-top: 1px solid var(--line); padding: 6px 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 13px; margin: 6px 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child { overflow-wrap: anywhere; font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.fail td { color: var(--bad); } tr.fail td:nth-child(2) { font-weight: 700; }
@media (max-width: 720px) { .wide { display: none; } .panels { gap: 6px; } section { padding: 14px 12px; } }
"""
