"""C++ and Rust names as they are written in the source, without parameters, as perf shows them.

perf asks libiberty for a name with no options (tools/perf/util/symbol-elf.c: demangle_sym()), so
the outermost parameter list, the return type of a template and the suffixes of clones are left
out. The work is LLVM's; it recurses and expands, so names that could make it run wild are left
as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache

# LLVM's parser recurses once or more a character, and back references multiply its output
_LONGEST = 1500
_MOST_REFERENCES = 24
_REFERENCE = re.compile(r"[ST][0-9A-Z]*_|B[0-9a-zA-Z]*_")
_LEGACY_RUST = re.compile(r"17h[0-9a-f]{16}E(\.llvm\.\d+)?$")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}\b.*$")
_RUST_ESCAPES = (
    ("..", "::"),
    ("$LT$", "<"),
    ("$GT$", ">"),
    ("$RF$", "&"),
    ("$BP$", "*"),
    ("$C$", ","),
    ("$LP$", "("),
    ("$RP$", ")"),
    ("$SP$", "@"),
    ("$u20$", " "),
    ("$u27$", "'"),
    ("$u5b$", "["),
    ("$u5d$", "]"),
    ("$u7b$", "{"),
    ("$u7d$", "}"),
    ("$u7e$", "~"),
)
_TOKEN = re.compile(
    r"\(anonymous namespace\)|[][<>(){} ]|(?<!\w)operator"
    r"(?P<what>\(\)|\[\]|->\*?|<=>|<<=?|>>=?|[<>]=?|\"\" ?\w+|[^\w\s(<]{1,2}| (?=\w)|(?=\b))"
)
_PLAIN = re.compile(r"([\w:~$.]+)\([^][<>(){}]*\)(?: const)?")
# libiberty, and so perf, keeps the brackets that close template arguments apart
_CLOSINGS = re.compile(r"(?<!operator)>(?=>)")
_TAIL = re.compile(r"( const| volatile| &&?|\[abi:[^\]]*\]| \(\.[^)]*\))*$")


@lru_cache(maxsize=1 << 17)
def demangle(name: str) -> str:
    """The readable form of a symbol's name; the name itself where it is no mangled one."""
    if not name.startswith(("_Z", "_R", "?", "__Z", "___Z")) or len(name) > _LONGEST:
        return name
    if len(_REFERENCE.findall(name)) > _MOST_REFERENCES:
        return name
    import pycxxfilt

    # a suffix such as @plt or @@GLIBC_2.14 is not part of the mangling
    mangled, at, version = name.partition("@")
    try:
        readable = pycxxfilt.demangle(mangled)
    except (ValueError, UnicodeError):
        return name
    if not readable:
        return name
    if _LEGACY_RUST.search(mangled):
        return _rust(readable) + at + version
    if mangled.startswith("_Z") and not mangled.startswith(("_ZT", "_ZG")):
        readable = _without_parameters(readable)
    if ">>" in readable and mangled.startswith("_Z"):
        readable = _CLOSINGS.sub("> ", readable)
    return _lambdas(readable) + at + version


def _lambdas(text: str) -> str:
    """LLVM's `'lambda0'(int)` as everybody else spells it: `{lambda(int)#2}`."""
    while (at := text.rfind("'lambda")) >= 0:
        number, quote, rest = text[at + len("'lambda") :].partition("'")
        end = _closing(rest)
        if not quote or not end or not ((number.isascii() and number.isdigit()) or not number):
            break
        nth = int(number) + 2 if number else 1
        text = f"{text[:at]}{{lambda{rest[:end]}#{nth}}}{rest[end:]}"
    return text


def _closing(text: str) -> int:
    """Where the parenthesis that the text begins with is closed, 0 where it does not."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return i + 1 if letter == ")" else 0
    return 0


def _rust(readable: str) -> str:
    readable = _RUST_HASH.sub("", readable)
    for escape, plain in _RUST_ESCAPES:
        readable = readable.replace(escape, plain)
    return "::".join(
        part[1:] if part.startswith(("_<", "_&", "_*")) else part for part in readable.split("::")
    )


def _without_parameters(text: str) -> str:
    """Cut the outermost parameter list and what stands after it, and the return type before."""
    plain = _PLAIN.fullmatch(text)
    if plain and "operator" not in text:
        return plain[1]
    depth = 0
    begin = 0
    opened = -1
    token = _TOKEN.search(text)
    while token:
        i, end, letter = token.start(), token.end(), token[0]
        if letter == " ":
            if depth == 0 and not text.startswith((" const::", " volatile::"), i):
                begin = end
        elif letter in "<([{":
            if depth == 0 and letter == "(":
                opened = i
            depth += 1
        elif letter in ">)]}":
            depth -= letter != ">" or text[i - 1 : i] != "-"
            if depth == 0 and letter == ")" and _TAIL.fullmatch(text, end):
                return text[begin:opened]
        elif letter[0] == "o" and depth == 0 and token["what"] == " ":
            # a conversion: its type, blanks and all, is the name
            end = _conversion_end(text, end)
        token = _TOKEN.search(text, end)
    return text


def _conversion_end(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        if text[at] == "<":
            depth += 1
        elif text[at] == ">":
            depth -= 1
        elif text[at] == "(" and depth == 0:
            return at
        at += 1
    return at
