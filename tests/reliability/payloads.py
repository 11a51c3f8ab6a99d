"""Names that would do something if a page, a table, a terminal, a figure or a path took them for more than text.

All of it is harmless: scripts would only set a mark on the page, by which a browser that runs one is noticed.
"""

from __future__ import annotations

MARK = "document.documentElement.dataset.injected=1"

FAMILIES: dict[str, tuple[str, ...]] = {
    "script": (
        f"<script>{MARK}</script>",
        f"</title><script>{MARK}</script>",
        f"</style><script>{MARK}</script>",
        f"</script><script>{MARK}</script>",
        f"--><script>{MARK}</script>",
        f"]]><script>{MARK}</script>",
        f"<svg onload={MARK}>",
        f"<img src=x onerror={MARK}>",
        f"<iframe srcdoc='<script>parent.{MARK}</script>'>",
        f"<details open ontoggle={MARK}>",
        f'<a href="javascript:{MARK}">a</a>',
    ),
    "attribute": (
        f'" onmouseover="{MARK}',
        f"' onfocus='{MARK}' autofocus='",
        f'"><img src=x onerror={MARK}>',
        f"`onload={MARK}`",
        f"javascript:{MARK}",
        f"data:text/html,<script>{MARK}</script>",
        "x;background:url(//example.invalid)",
        "}body{display:none}",
        "</td></tr></table></div>",
        "</pre></section></main>",
        "<!--",
        "&lt;b&gt;&#60;i&#62;&quot;",
    ),
    "template": ("{{7*7}}", "{% raw %}", "{# gone #}", "${7*7}", "#{7*7}", "%(name)s %d %n", "{0.__class__}", "{name}"),
    "formula": (
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "\t=1+1",
        "\r=1+1",
        "'=1+1",
        "a;=1+1",
        "a\n=1+1",
        '","=1+1',
        "\uff1d1+1",
        '=HYPERLINK("http://example.invalid")',
    ),
    "terminal": (
        "\x1b[31mred",
        "\x1b[2J\x1b[H",
        "\x1b]0;title\x07",
        "\x1b]8;;http://example.invalid\x1b\\link\x1b]8;;\x1b\\",
        "\x9b31mred",
        "\x07\x08\x08\x08gone",
        "line\rover",
        "\x0e\x0f\x7f",
        "\x1bc",
        "a\x0bb\x0cc",
    ),
    "markup": ("[red]red[/red]", "[/]", "[link=http://example.invalid]x[/link]", "[bold", ":smile:", "\\[red]"),
    "direction": (
        "\u202egnp.exe",
        "\u2066isolate\u2069",
        "\u202aembedded\u202c",
        "\u200e\u200fmarks\u061c",
        "zero\u200bwidth",
        "join\u200ders\u200c",
        "\ufeffmark",
        "soft\xadhyphen",
        "\u2028line\u2029paragraph",
        "\U000e0041tag",
    ),
    "mathematics": ("$x$", "$\\frac{1}{2}$", "$\\notacommand{$", "$$", "\\$x\\$", "$a$ and $b", "x_1^2", "_hidden"),
    "path": (
        "../../../evil",
        "..",
        ".",
        "/etc/name",
        "C:\\name",
        "a/b/c",
        "a\\b",
        "-rf",
        ".hidden",
        "con",
        "NUL.txt",
        "com1",
        "name. ",
        "a:b|c?d*e",
    ),
    "lines": ("two\nlines", "two\r\nlines", "a\nNote: forged", "a\tb", "nul\0byte", "\n", "a\u0085b"),
    "quotes": (
        'say "hi"',
        "it's",
        "`id`",
        "$(id)",
        "; id",
        "a && b",
        '"""',
        "'''",
        "\\",
        "\\u0041",
        "#comment",
        "a = 1",
    ),
    "markdown": (
        "a|b",
        "[a](http://example.invalid)",
        "![a](x.png)",
        "**bold**",
        "`code`",
        "<b>html</b>",
        "https://example.invalid",
        "~~gone~~",
        "&amp;",
        "www.example.invalid",
    ),
    "scripts": (
        "\u05e9\u05dc\u05d5\u05dd",
        "\u0645\u0631\u062d\u0628\u0627",
        "\u306d\u3053",
        "\U0001f468\u200d\U0001f4bb",
        "e\u0301",
        "a" + "\u0301" * 60,
        "\U0001f600",
        "\u0645\u06cc\u200c\u062e",
        "\ud800",
        "caf\udce9",
    ),
    "size": ("W" * 3000, "very long " * 200, " ", "   ", "\u00a0", "\u3000", "0", "-1", "1e5", "null", "true"),
}
"""Payloads by what they would do."""

PLACES = ("{}", "cat {}")
"""Where a payload stands in a name."""

NAMES: tuple[str, ...] = tuple(
    dict.fromkeys(place.replace("{}", each) for each in (n for f in FAMILIES.values() for n in f) for place in PLACES)
)
"""Every payload in every place."""


def harmless(name: str, number: int) -> str:
    """A name that a page treats alike: with the same folders, and a position at its end where the other has one."""
    start = f"n{number}"
    return start + "".join(character if character in "/]" else "n" for character in name[len(start) :])
