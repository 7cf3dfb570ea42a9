package agentos.syscall.rules.secrets_out_test

import data.agentos.syscall.rules.secrets_out

found(tool, effect, args) := results if {
	results := secrets_out.results with input as {"syscall": {"tool": tool, "effect": effect, "args": args}}
		with data.agentos.tools as {"write-note": {"workspace_args": ["path"]}}
}

sent(text) := found("send-mail", "external", {"body": text})

holds(tool, kind) := {{
	"rule": "secrets_out.found",
	"effect": "deny",
	"reason": sprintf("the arguments of tool %s seem to hold %s; leave it out", [tool, kind]),
}}

test_bank_accounts if {
	every text in ["to DE89 3704 0044 0532 0130 00 please", "gb33-bukb-2020-1555-5555-55", "DE89370400440532013000."] {
		sent(text) == holds("send-mail", "a bank account (IBAN)")
	}
}

test_card_numbers if {
	every text in ["card 4111 1111 1111 1111, thanks", "4111-1111-1111-1111", "378282246310005"] {
		sent(text) == holds("send-mail", "a card number")
	}
}

test_digits_without_a_check_digit if {
	every text in ["tracking 4111 1111 1111 1112", "order 20261118103055", "+49 30 1234567"] {
		sent(text) == set()
	}
}

test_passwords if {
	every text in ["the password is heron-trundle-88", "Passphrase: heron-trundle-88", "passwd=hunter2!"] {
		sent(text) == holds("send-mail", "a password")
	}
}

test_keys if {
	sent("use AKIAABCDEFGHIJKLMNOP for it") == holds("send-mail", "an access key")
	sent("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz") == holds("send-mail", "a private key")
}

test_every_depth_is_looked_at if {
	found("post", "external", {"message": {"parts": [{"text": "passwd=hunter2!"}]}}) == holds("post", "a password")
	found("post", "external", {"fields": {"4111 1111 1111 1111": true}}) == holds("post", "a card number")
	found("post", "external", {"card": 4111111111111111}) == holds("post", "a card number")
}

test_ordinary_texts if {
	every text in ["Your order KR-10376 left on 18 November.", "Please keep your password to yourself.", ""] {
		sent(text) == set()
	}
}

test_a_draft_is_on_its_way if {
	found("write-note", "write", {"path": [7, "outbox/a.md"], "content": "passwd=hunter2!"}) == holds("write-note", "a password")
	every path in ["outbox/a.md", "./OUTBOX/a.md"] {
		found("write-note", "write", {"path": path, "content": "passwd=hunter2!"}) == holds("write-note", "a password")
	}
}

test_more_than_is_looked_through if {
	args := {"body": "passwd=hunter2!"}
	held := holds("send-mail", "a password")
	held == found("send-mail", "external", args) with secrets_out.longest as 26
	unread := found("send-mail", "external", args) with secrets_out.longest as 25
	unread == {{
		"rule": "secrets_out.unread",
		"effect": "deny",
		"reason": "the arguments of tool send-mail have 26 characters; at most 25 are looked through for secrets",
	}}
	inside := found("write-note", "write", {"path": "notes/a.md", "content": "long"}) with secrets_out.longest as 25
	inside == set()
	every other in [{"4111 1111 1111 1111": true}, {"some card": 4111111111111111}] {
		results := found("send-mail", "external", other) with secrets_out.longest as 25
		{result.rule | some result in results} == {"secrets_out.unread"}
	}
}

test_notes_stay_inside if {
	found("write-note", "write", {"path": "notes/a.md", "content": "passwd=hunter2!"}) == set()
	found("write-note", "write", {"path": "notes/a.md", "content": "see x/outbox/y: passwd=hunter2!"}) == set()
	found("write-note", "read", {"path": "outbox/a.md", "content": "passwd=hunter2!"}) == set()
}

test_the_model_is_not_its_matter if found("model-call", "external", {"model": "passwd=hunter2!"}) == set()
