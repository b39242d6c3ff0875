"""What somebody might write to have it run, loaded, hidden or calculated where it is shown, and runs that say it in every field.

Each injection that could run sets `ran`; each that could load asks for a host that is none. A field is known by the mark that
stands before and behind what was injected there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from reliability_case import PROBE  # noqa: F401  (it says where the tests' helpers are)
from reports import MANY, judged, run_of

from alignguard.auditing.audit import Audit
from alignguard.auditing.result import Result
from alignguard.records.about import About
from alignguard.verdicts.verdict import Verdict

INJECTIONS = {
    # scripts
    "script": "<script>ran=1</script>",
    "script, closing another": "</script><script>ran=1</script>",
    "script, loaded": "<SCRIPT SRC=http://evil.invalid/x.js></SCRIPT>",
    "script, in two": "<scr<script>ipt>ran=1</scr</script>ipt>",
    "script, odd space": "<script\x0ctype=text/javascript>ran=1</script\x0c>",
    "script, slash": "<script/x>ran=1</script/x>",
    "script, null": "<scr\0ipt>ran=1</scr\0ipt>",
    "script, full width": "＜script＞ran=1＜/script＞",
    "script, escaped once": "&lt;script&gt;ran=1&lt;/script&gt;",
    "script, escaped twice": "&amp;lt;script&amp;gt;ran=1&amp;lt;/script&amp;gt;",
    "script, as numbers": "&#60;script&#62;ran=1&#x3c;/script&#x3e;",
    "script, in a URL": "%3Cscript%3Eran=1%3C/script%3E",
    "script, a module": "<script type=module>ran=1</script>",
    # events
    "event: img": "<img src=x onerror=ran=1>",
    "event: svg": "<svg/onload=ran=1>",
    "event: body": "<body onload=ran=1>",
    "event: details": "<details open ontoggle=ran=1>",
    "event: input": "<input autofocus onfocus=ran=1>",
    "event: video": "<video><source onerror=ran=1></video>",
    "event: style": "<style onload=ran=1></style>",
    "event: animation": "<svg><animate onbegin=ran=1 attributeName=x dur=1s>",
    # frames and plug-ins
    "frame: srcdoc": "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    "frame: javascript": "<iframe src=javascript:parent.ran=1></iframe>",
    "object": "<object data=http://evil.invalid/x.swf></object><embed src=http://evil.invalid/y>",
    # attributes
    'attribute "': '" onmouseover=ran=1 autofocus onfocus=ran=1 tabindex=1 x="',
    "attribute '": "' autofocus onfocus=ran=1 tabindex=1 x='",
    "attribute `": "` autofocus onfocus=ran=1 x=`",
    'attribute ">': '"><script>ran=1</script>',
    "attribute '/>": "'/><img src=x onerror=ran=1>",
    "attribute without quotes": " onload=ran=1 ",
    # links and requests
    "link": '<a href="javascript:ran=1" autofocus>x</a>',
    "link: data": '<a href="data:text/html,<script>ran=1</script>">x</a>',
    "request: img": "<img src=http://evil.invalid/p.png>",
    "request: base": "<base href=http://evil.invalid/>",
    "request: refresh": '<meta http-equiv=refresh content="0;url=http://evil.invalid/">',
    "request: link": "<link rel=stylesheet href=http://evil.invalid/x.css><link rel=prefetch href=http://evil.invalid/y>",
    "request: form": "<form action=http://evil.invalid/><button autofocus>x</button></form>",
    # SVG and XML
    "svg: script": "<svg><script>ran=1</script></svg>",
    "svg: use": '<svg><use href="http://evil.invalid/x.svg#a"/></svg>',
    "svg: foreign": "<svg><foreignObject><img src=x onerror=ran=1></foreignObject></svg>",
    "svg: math": "<math><mtext><table><mglyph><style><img src=x onerror=ran=1>",
    "xml: cdata": "]]><script>ran=1</script><![CDATA[",
    "xml: entity": '<!ENTITY x SYSTEM "file:///etc/passwd">&x;',
    "xml: stylesheet": '<?xml-stylesheet href="http://evil.invalid/x.xsl"?>',
    # closings and templates
    "closing: title": "</title><script>ran=1</script>",
    "closing: style": "</style><script>ran=1</script>",
    "closing: comment": "--><script>ran=1</script><!--",
    "closing: page": "</div></details></td></table></main></body></html><script>ran=1</script>",
    "template: jinja": "{{ 7*7 }}{% include '/etc/passwd' %}{{ ''.__class__.__mro__ }}",
    "template: others": "${7*7}<%= 7*7 %>#{7*7}%(x)s{0.__class__}%s",
    # style
    "style: hide": "<style>*{display:none}</style>",
    "style: import": "<style>@import 'http://evil.invalid/x.css';</style>",
    "style: attribute": '<p style="position:fixed;inset:0;background:url(http://evil.invalid/x)">x</p>',
    "style: value": ";background:url(http://evil.invalid/x);x:expression(ran=1)",
    # what is not seen, or turns round what is
    "unicode: bidi": "\u202egnp.exe\u2066\u2067",
    "unicode: zero width": "a\u200bb\u2060c\ufeffd",
    "unicode: lines": "a\u2028ran=1\u2029b\x85c",
    "unicode: surrogate": "a\ud800b",
    "unicode: tags": "a\U000e0041\U000e0042b",
    "unicode: many marks": "a" + "\u0301\u0489" * 40,
    # terminals
    "terminal: clear": "\x1b[2J\x1b[1;1H\x1b[31mred",
    "terminal: title": "\x1b]0;owned\x07",
    "terminal: link": "\x1b]8;;http://evil.invalid\x1b\\x\x1b]8;;\x1b\\",
    "terminal: C1": "\x9b31m\x9d0;owned\x9c",
    "terminal: back": "good\r\x08\x08\x08\x08evil\x7f",
    "terminal: lines": "a\nalignguard: no regression\x0bfound\x0c",
    # Markdown
    "markdown: link": "[x](javascript:ran=1) <javascript:ran=1> ![x](http://evil.invalid/p.png)",
    "markdown: html": "\n\n<img src=x onerror=ran=1>\n\n",
    "markdown: fence": "```html\n<script>ran=1</script>\n```\n# big",
    "markdown: table": "| a | b |\n|---|---|",
    "markdown: ours": "<!-- /alignguard --><!-- alignguard -->",
    "markdown: front matter": "\n---\nlicense: mit\n---\n",
    "markdown: yaml": "!!python/object/apply:os.system ['true'] &a *a",
    "markdown: reference": "[x]: http://evil.invalid/ @owner #1 http://evil.invalid www.evil.invalid",
    # spreadsheets
    "formula =": "=HYPERLINK(\"http://evil.invalid\",\"x\")",
    "formula +": "+1+cmd|' /C calc'!A0",
    "formula -": "-1+cmd|' /C calc'!A0",
    "formula @": "@SUM(1+1)",
    "formula, tab": "\t=1+1",
    "formula, return": "\r=1+1",
    "formula, space": "  =1+1",
    "formula, full width": "＝1+1",
}  # fmt: skip

# of what a record says of itself, texts that others may have written
_SAID = [field.name for field in fields(About) if str(field.type).startswith("str") or field.name == "budget"]


def marked(injection: str) -> Callable[[str], str]:
    """What stands in a field: the injection between two marks that tell the field; what must stand first does."""
    if injection.startswith(("=", "+", "-", "@", "\t", "\r", " ", "＝")):
        return lambda field: f"{injection}{mark(field)}"
    return lambda field: f"{mark(field)}{injection}{mark(field)}"


def mark(field: str) -> str:
    """What a field is known by."""
    return f"q{re.sub('[^a-z]', '', field.lower())}q"


FIELDS = (
    *_SAID,
    *("tags", "template", "sampling", "path", "warning", "note", "failed", "metric"),
    *("probe", "family", "group", "condition", "role", "system", "asked", "option", "expected", "secret"),
    *("said", "before", "thought"),
)


def hostile(injection: str) -> tuple[About, list[Audit], Verdict, dict[str, Result]]:
    """A regression of which everything that others name, ask or say holds an injection."""
    say = marked(injection)
    turns = ({"role": "system", "content": say("system")}, {"role": say("role"), "content": say("asked")})
    probes = [
        replace(
            p,
            id=f"{say('probe')}{i}",
            family=f"{say('family')}{i}",
            group=say("group"),
            condition=say("condition"),
            messages=turns,
            options=tuple(f"{say('option')}{n}" for n, _ in enumerate(p.options)),
            expected=say("expected"),
            secrets=(say("secret"),),
        )
        for i, p in enumerate(MANY[:27])
    ]
    audits, verdict = run_of({0: 1.0, 5: 1.0, 10: 0.0, 15: 0.0}, say("before"), say("said"), probes, say("thought"))
    audits[-1].metrics |= {f"alignguard/status/{say('metric')}": 0.5, f"alignguard/{say('metric')}": 0.5}
    told: dict[str, Any] = {name: say(name) for name in _SAID}
    about = About(
        **told,
        max_steps=15,
        tags=(say("tags"), say("tags")),
        template_kwargs={say("template"): say("template")},
        engine={name: say(name) for name in ("url", "model", "server", "reference")},
        left_out=(say("left_out"),),
        notes=(say("note"),),
        sampling={"temperature": 0.6, "top_p": 0.9, "samples": 1, say("sampling"): say("sampling")},
    )
    return about, audits, replace(verdict, warnings=(say("warning"),)), judged(1.0, say("before"), probes)
