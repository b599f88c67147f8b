"""What a file is written in, judged by its name. Nothing here looks inside."""

from __future__ import annotations

import os
from typing import Final

OTHER: Final = "Other text"
LOCK_FILES: Final = "Lock files"

_BY_NAME: Final = {
    "makefile": "Make",
    "gnumakefile": "Make",
    "dockerfile": "Docker",
    "containerfile": "Docker",
    "cmakelists.txt": "CMake",
    "justfile": "Just",
    "rakefile": "Ruby",
    "gemfile": "Ruby",
    "jenkinsfile": "Groovy",
    "build.bazel": "Starlark",
    "workspace.bazel": "Starlark",
    "package-lock.json": LOCK_FILES,
    "npm-shrinkwrap.json": LOCK_FILES,
    "yarn.lock": LOCK_FILES,
    "pnpm-lock.yaml": LOCK_FILES,
    "bun.lock": LOCK_FILES,
    "uv.lock": LOCK_FILES,
    "poetry.lock": LOCK_FILES,
    "pdm.lock": LOCK_FILES,
    "pipfile.lock": LOCK_FILES,
    "cargo.lock": LOCK_FILES,
    "go.sum": LOCK_FILES,
    "gemfile.lock": LOCK_FILES,
    "composer.lock": LOCK_FILES,
    "flake.lock": LOCK_FILES,
}

_BY_ENDING: Final = {
    ending: language
    for language, endings in {
        "Python": "py pyi pyx",
        "JavaScript": "js mjs cjs jsx",
        "TypeScript": "ts mts cts tsx",
        "Vue": "vue",
        "Svelte": "svelte",
        "HTML": "html htm",
        "CSS": "css scss sass less",
        "C": "c h",
        "C++": "cc cpp cxx hh hpp hxx",
        "C#": "cs",
        "F#": "fs fsi fsx",
        "Java": "java",
        "Kotlin": "kt kts",
        "Scala": "scala sc",
        "Groovy": "groovy gradle",
        "Go": "go",
        "Rust": "rs",
        "Zig": "zig",
        "Swift": "swift",
        "Objective-C": "m mm",
        "Dart": "dart",
        "Ruby": "rb rake gemspec",
        "PHP": "php",
        "Perl": "pl pm",
        "Lua": "lua",
        "R": "r",
        "Julia": "jl",
        "Haskell": "hs",
        "OCaml": "ml mli",
        "Elixir": "ex exs",
        "Erlang": "erl hrl",
        "Clojure": "clj cljs cljc edn",
        "Shell": "sh bash zsh fish",
        "PowerShell": "ps1 psm1",
        "SQL": "sql",
        "GraphQL": "graphql gql",
        "Protocol Buffers": "proto",
        "Terraform": "tf tfvars",
        "Nix": "nix",
        "Starlark": "bzl star",
        "CMake": "cmake",
        "Make": "mk",
        "JSON": "json jsonc json5 jsonl ndjson ipynb",
        "YAML": "yaml yml",
        "TOML": "toml",
        "INI": "ini cfg conf properties",
        "XML": "xml xsd xsl svg",
        "CSV": "csv tsv",
        "Markdown": "md mdx markdown",
        "reStructuredText": "rst",
        "AsciiDoc": "adoc asciidoc",
        "TeX": "tex bib",
        "Plain text": "txt text",
        "Jinja": "jinja jinja2 j2",
    }.items()
    for ending in endings.split()
}


def language_of(path: bytes) -> str:
    name = os.path.basename(path).decode("utf-8", "replace").lower()
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.startswith(("dockerfile.", "makefile.")):
        return _BY_NAME[name.partition(".")[0]]
    _, dot, ending = name.rpartition(".")
    return _BY_ENDING.get(ending, OTHER) if dot else OTHER
