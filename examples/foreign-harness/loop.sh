#!/bin/sh
# A harness in POSIX shell and awk: no Python, no jq, nothing of AgentOS. It decodes nothing that it passes on: awk finds where a value
# of a frame begins and ends, and that piece of JSON goes back as it came. mawk has to be told to take lines as they come.
case "$(awk -W version 2>&1 </dev/null)" in mawk*) set -- -W interactive ;; *) set -- ;; esac
LC_ALL=C exec awk "$@" '
function token(  rest, from) {                      # the token at p of the text s: left in t, and p moves behind it
    while (substr(s, p, 1) ~ /[ \t\r]/) p++
    t = substr(s, p, 1)
    if (t == "") exit 1
    if (t ~ /[][{}:,]/) { p++; return }
    from = p
    if (t != "\"") { while (substr(s, p, 1) ~ /[-+.a-zA-Z0-9]/) p++; if (p == from) exit 1 }
    else for (p++; ; ) {
        rest = substr(s, p, 4096)
        if (rest == "") exit 1
        if (!match(rest, /["\\]/)) { p += length(rest); continue }
        p += RSTART
        if (substr(s, p - 1, 1) == "\"") break
        p++
    }
    t = substr(s, from, p - from)
}
function value(  from, deep) {                      # the raw value that begins with the token t
    from = p - length(t)
    for (deep = 0; ; token()) {
        if (t == "{" || t == "[") deep++
        if (t == "}" || t == "]") deep--
        if (deep <= 0) return substr(s, from, p - from)
    }
}
function plain(text,  done, hex) {                  # a name without escapes of ASCII letters
    while (match(text, /\\u00[0-7][0-9a-fA-F]/)) {
        hex = tolower(substr(text, RSTART + 4, 2))
        done = done substr(text, 1, RSTART - 1) sprintf("%c", 16 * substr(hex, 1, 1) + index("123456789abcdef", substr(hex, 2)))
        text = substr(text, RSTART + 6)
    }
    return done text
}
function open(text, bracket) { s = text; p = 1; token(); if (t != bracket) exit 1 }
function of(text, name,  key) {                     # the raw value of a field, "" where there is none
    for (open(text, "{"); ; ) {
        token(); if (t == ",") token()
        if (t == "}") return ""
        key = plain(t); token(); token(); text = value()
        if (key == "\"" name "\"") return text
    }
}
function each(text, list,  n) {                     # the raw values of a list, in list[1] to list[n]
    for (open(text, "["); ; list[++n] = value()) { token(); if (t == ",") token(); if (t == "]") return n }
}
function say(id, rest) { print "{\"jsonrpc\":\"2.0\",\"id\":" id "," rest "}"; fflush() }
function hear() { if ((getline frame) <= 0 || substr(frame, length(frame)) != "}") exit 0; return frame }
function ask(method, params,  told) {               # the raw result; leaves when it is told to
    say(++number, "\"method\":\"" method "\",\"params\":" params)
    do told = hear(); while (of(told, "id") != number || of(told, "method") != "")
    if ((params = of(told, "result")) != "") return params
    exit of(of(told, "error"), "code") ~ /^-3200[12]$/ ? 0 : 1
}
BEGIN {
    hello = hear()
    if (of(hello, "method") != "\"initialize\"") exit 0
    say(of(hello, "id"), "\"result\":{\"abi\":\"agentos/v1\",\"name\":\"sh\",\"version\":\"1\"}")
    if (of(of(hello, "params"), "abi") != "\"agentos/v1\"") exit 0
    view = ask("session.view", "{}")
    final = of(view, "final"); calls = each(of(view, "pending"), call)
    while (final == "null") {
        for (i = 1; i <= calls; i++) ask("tool.call", call[i])
        blocks = each(of(ask("model.call", "{}"), "content"), block)
        words = ""; calls = 0
        for (i = 1; i <= blocks; i++) {
            kind = plain(of(block[i], "type"))
            if (kind == "\"tool_use\"") call[++calls] = "{\"call\":" of(block[i], "id") ",\"tool\":" of(block[i], "name") ",\"args\":" of(block[i], "input") "}"
            if (kind == "\"text\"") { text = of(block[i], "text"); words = words (words == "" ? "" : "\\n") substr(text, 2, length(text) - 2) }
        }
        if (!calls) final = "\"" words "\""
    }
    ask("finish", "{\"result\":" final "}")
}'
