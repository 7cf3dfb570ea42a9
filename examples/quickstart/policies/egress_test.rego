package agentos.syscall.rules.egress_test

import data.agentos.syscall.rules.egress

question(labels, tool, effect, args) := {
	"syscall": {"tool": tool, "effect": effect, "args": args},
	"session": {"labels": labels},
}

results(labels, tool, effect, args) := found if {
	found := egress.results with input as question(labels, tool, effect, args)
}

draft(text) := results(["untrusted"], "write", "write", {"path": "outbox/reply.md", "content": text})

secret(kind) := {{
	"rule": "egress.secrets",
	"effect": "deny",
	"reason": sprintf("the text for outbox/reply.md seems to hold %s; leave it out, or let a person send it", [kind]),
}}

test_an_untrusted_session_may_not_reach_outside if {
	results(["untrusted"], "fetch", "external", {"url": "https://intranet.example/"}) == {{
		"rule": "egress.untrusted",
		"effect": "deny",
		"reason": "the session has read text that strangers wrote, so tool fetch, which reaches outside, is closed to it",
	}}
}

test_the_label_counts_among_others if {
	found := results(["pii", "untrusted"], "fetch", "external", {"url": "https://intranet.example/"})
	count(found) == 1
}

test_a_session_that_read_nothing_may_reach_outside if {
	results([], "fetch", "external", {"url": "https://intranet.example/"}) == set()
}

test_an_untrusted_session_may_read_write_and_think if {
	results(["untrusted"], "read", "read", {"path": "input/a.md"}) == set()
	results(["untrusted"], "write", "write", {"path": "triage/a.md", "content": "hello"}) == set()
	results(["untrusted"], "model-call", "external", {"model": "m", "input_digest": "sha256:1"}) == set()
}

test_bank_accounts if {
	every text in ["IBAN GB33 BUKB 2020 1555 5555 55 from today", "to DE89370400440532013000.", "gb33-bukb-2020-1555-5555-55"] {
		draft(text) == secret("a bank account (IBAN)")
	}
}

test_passwords if {
	every text in ["the password is heron-trundle-88", "Passphrase: heron-trundle-88", "passwd=hunter2!"] {
		draft(text) == secret("a password")
	}
}

test_keys if {
	draft("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz") == secret("a private key")
	draft("api_key = 0123456789abcdef0123") == secret("an access key")
	draft("use AKIAABCDEFGHIJKLMNOP for it") == secret("an access key")
}

test_ordinary_drafts_pass if {
	every text in [
		"Re: order KR-10376\n\nYour cover left on 18 November 2026 at 14:00. Please keep your password to yourself.",
		"08:00 America/New_York is 13:00 here; invoice NF-22914, EUR 4,318.60",
		"",
	] {
		draft(text) == set()
	}
}

test_the_same_text_may_stand_in_notes if {
	results(["untrusted"], "write", "write", {"path": "triage/payment.md", "content": "IBAN GB33 BUKB 2020 1555 5555 55"}) == set()
}

test_every_way_to_write_outbox_counts if {
	every path in ["outbox/a.md", "./outbox/a.md", "outbox//a.md", "triage/../outbox/a.md"] {
		found := results([], "write", "write", {"path": path, "content": "password: heron-trundle-88"})
		count(found) == 1
	}
}

test_a_secret_in_the_name_of_the_file_counts if {
	found := results([], "write", "write", {"path": "outbox/DE89370400440532013000.md", "content": "hello"})
	count(found) == 1
}
