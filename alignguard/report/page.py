"""The shell of every page we write: one file that needs no network and no script, on a phone, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# the page may load nothing, run nothing and send nothing, whatever is written on it
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
:root{color-scheme:light;--bg:#fff;--fg:#1c2430;--dim:#586371;--line:#dfe4ea;--card:#f5f7f9;--bad:#b3261e;--good:#17703f;
--badly:#fdecea;--goodly:#e7f5ec;--odd:#8a5a00;--oddly:#fdf3dc;--was:#fbe3d0;--is:#d6e6ff;--c1:#2563eb;--c2:#c2410c;--c3:#7c3aed;--c4:#0f766e;
--c5:#be185d;--c6:#4d7c0f;--c7:#92400e;--c8:#475569}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;--bg:#12161c;--fg:#e6eaf0;--dim:#a3aebc;--line:#2e3743;
--card:#1a2029;--bad:#ff8a80;--good:#6ee7a8;--badly:#3a1c1b;--goodly:#14301f;--odd:#f5c26b;--oddly:#352a13;--was:#573016;--is:#1d3d6e;--c1:#7aa2ff;
--c2:#ff9e64;--c3:#c4a5ff;--c4:#5eead4;--c5:#f472b6;--c6:#bef264;--c7:#d6a36a;--c8:#94a3b8}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:1120px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:22px;line-height:1.25;margin:0}h2{font-size:18px;margin:40px 0 10px}h3{font-size:15px;margin:22px 0 8px}
.sub{color:var(--dim);margin:2px 0 18px}.note{color:var(--dim);font-size:13px;margin:8px 0 14px}
.headline{padding:14px 18px;border-radius:8px;background:var(--goodly);border-left:6px solid var(--good)}
.headline b{display:block;font-size:20px;line-height:1.3;color:var(--good)}.headline p{margin:4px 0 0;text-wrap:pretty}
.headline.bad{background:var(--badly);border-left-color:var(--bad)}.headline.bad b{color:var(--bad)}
.headline.odd{background:var(--oddly);border-left-color:var(--odd)}.headline.odd b{color:var(--odd)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(140px,1fr));gap:10px;margin:14px 0}
.card{background:var(--card);border-radius:8px;padding:10px 12px}
.card b{display:block;font-size:20px;font-variant-numeric:tabular-nums}.card span{color:var(--dim);font-size:13px}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:14px;margin:14px 0}
.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}
figure{margin:0;background:var(--card);border-radius:8px;padding:10px 12px;break-inside:avoid}
figcaption{font-weight:600;margin-bottom:4px}
svg{width:100%;height:auto;display:block}
.grid{stroke:var(--line)}.tick,.label{fill:var(--dim);font-size:12px}.small .tick,.small .label{font-size:15px}
.mark{stroke-width:1.5;stroke-dasharray:5 3;stroke:var(--c)}
.line{fill:none;stroke-width:2;stroke:var(--c)}.band{opacity:.18;stroke:none}.dot,.band{fill:var(--c)}
.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}.c6{--c:var(--c6)}
.c7{--c:var(--c7)}.c8{--c:var(--c8)}.worse{--c:var(--bad)}.better{--c:var(--good)}
.legend{font-size:13px;color:var(--dim);margin-top:4px}.key{margin-right:14px;display:inline-block}
.key::before{content:"";display:inline-block;width:10px;height:10px;border-radius:5px;background:var(--c);margin-right:5px;
print-color-adjust:exact}
.key.rule::before{width:16px;height:0;border-radius:0;border-top:2px dashed var(--c);background:none;vertical-align:middle}
.scroll{overflow-x:auto;overflow-wrap:normal}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child,.left,.words{text-align:left}th{color:var(--dim);font-weight:600;font-size:13px}
.words{white-space:normal;min-width:150px;overflow-wrap:anywhere}
.odd{--c:var(--odd)}.worse,.better,td.odd{color:var(--c)}.tall{max-height:420px;overflow-y:auto}
details{border:1px solid var(--line);border-radius:8px;margin:8px 0}
summary{padding:9px 12px;cursor:pointer}summary b{margin-right:8px}summary span{color:var(--dim);unicode-bidi:isolate}summary q{display:block;quotes:none;unicode-bidi:isolate}details[open] q{display:none}
.flip{padding:2px 12px 12px}
.sides{display:grid;grid-template-columns:1fr 1fr;gap:12px}.sides p,.flip>p{margin:8px 0 4px;color:var(--dim);font-size:13px}
.said{white-space:pre-wrap;overflow:hidden;unicode-bidi:isolate;background:var(--card);border-radius:6px;padding:8px 10px}
.trace{display:block;color:var(--dim);font-style:italic;margin-bottom:6px}
ins,del{text-decoration:none;border-radius:3px;print-color-adjust:exact}ins{background:var(--is)}del{background:var(--was)}
@media(max-width:640px){main{padding:16px 12px 48px}.sides{grid-template-columns:1fr;gap:0}.tick,.label{font-size:15px}
.cards{grid-template-columns:1fr 1fr}.headline b{font-size:18px}}
@media print{body{font-size:11px}main{max-width:none;padding:0}figure,.card,.headline,.said{border:1px solid #ccc}
details::details-content{content-visibility:visible;block-size:auto}h2,h3,summary{break-after:avoid}.scroll{overflow:visible;max-height:none}}
"""


def page(title: str, body: Sequence[str]) -> str:
    """
    A whole HTML page.

    Args:
        title (`str`):
            Of the window, as text.
        body (`Sequence[str]`):
            HTML, in which all that others have written is escaped.

    Returns:
        `str`: the page, which loads nothing and runs nothing.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        + "".join(body)
        + "</main></body></html>\n"
    )
