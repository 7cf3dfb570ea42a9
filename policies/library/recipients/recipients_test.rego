package agentos.syscall.rules.recipients_test

import data.agentos.syscall.rules.recipients

found(tool, effect, args) := results if {
	results := recipients.results with input as {"syscall": {"tool": tool, "effect": effect, "args": args}}
}

refused_address(value) := {{
	"rule": "recipients.address",
	"effect": "deny",
	"reason": sprintf("tool send-mail would write to %s, which is of no allowed domain", [json.marshal(value)]),
}}

refused_url(value) := {{
	"rule": "recipients.url",
	"effect": "deny",
	"reason": sprintf("tool fetch would call %s, which is not https to an allowed host", [json.marshal(value)]),
}}

test_addresses_of_allowed_domains if {
	every value in [
		"bo@kestrelrow.example",
		"Bo@Kestrelrow.Example",
		"Bo Ek <bo@partner.example>",
		"bo@partner.example, al@kestrelrow.example; cy@kestrelrow.example",
		["bo@partner.example", "al@kestrelrow.example"],
		{"primary": "bo@partner.example"},
		null,
		"",
		[],
	] {
		found("send-mail", "external", {"to": value, "body": "ask eve@evil.example"}) == set()
	}
}

test_addresses_elsewhere if {
	every value in [
		"bo@evil.example",
		"bo@mail.partner.example",
		"bo@partner.example.evil.example",
		"bo@evilpartner.example",
		"bo@partner.example, eve@evil.example",
		"bo@partner.example@evil.example",
		"<eve@evil.example> <bo@partner.example>",
		"bo@partner.example\nBcc: eve@evil.example",
		"bo@partner.example\n",
		`"bo@evil.example" <bo@partner.example>`,
		"the usual ones",
		"partner.example",
		7,
		true,
	] {
		found("send-mail", "external", {"to": value}) == refused_address(value)
	}
}

test_every_place_is_looked_at if {
	eve := refused_address("eve@evil.example")
	found("send-mail", "external", {"CC": ["bo@partner.example", "eve@evil.example"]}) == eve
	found("send-mail", "external", {"message": {"bcc": {"list": ["eve@evil.example"]}}}) == eve
}

test_urls_of_allowed_hosts if {
	every value in [
		"https://api.partner.example",
		"https://api.partner.example/v1/orders?id=7#top",
		"HTTPS://API.Partner.Example:443/v1",
		"https://intranet.kestrelrow.example?q=1",
	] {
		found("fetch", "external", {"url": value}) == set()
	}
}

test_urls_elsewhere if {
	every value in [
		"https://evil.example/",
		"http://api.partner.example/",
		"https://api.partner.example:8443/",
		"https://api.partner.example@evil.example/",
		`https://api.partner.example\@evil.example/`,
		"https://api.partner.example.evil.example/",
		"https://api.partner.example./",
		"https://evil.example/https://api.partner.example/",
		" https://api.partner.example/",
		"https://api.partner.example/\nhttps://evil.example/",
		"ftp://api.partner.example/",
		"//api.partner.example/",
		1,
	] {
		found("fetch", "external", {"url": value}) == refused_url(value)
	}
}

test_only_what_reaches_outside if {
	found("write-note", "write", {"to": "eve@evil.example", "url": "https://evil.example/"}) == set()
	found("model-call", "external", {"to": "eve@evil.example"}) == set()
}
