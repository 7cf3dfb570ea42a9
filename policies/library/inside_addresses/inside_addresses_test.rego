package agentos.syscall.rules.inside_addresses_test

import data.agentos.syscall.rules.inside_addresses

found(tool, effect, args) := results if {
	results := inside_addresses.results with input as {"syscall": {"tool": tool, "effect": effect, "args": args}}
}

called(url) := found("fetch", "external", {"url": url})

refused(id, url, template) := {{
	"rule": sprintf("inside_addresses.%s", [id]),
	"effect": "deny",
	"reason": sprintf(template, [json.marshal(url)]),
}}

test_names_of_the_own_network if {
	every url in [
		"http://localhost/",
		"http://LOCALHOST:8080/admin",
		"http://localhost./",
		"https://metadata.google.internal/computeMetadata/v1/",
		"https://metadata.google.internal./",
		"https://printer.local",
		"http://tracker-db/",
		"ws://app.localhost?x",
	] {
		called(url) == refused("name", url, "tool fetch would call %s, a name of the own network")
	}
}

test_addresses_in_numbers if {
	every url in [
		"http://169.254.169.254/latest/meta-data/",
		"http://127.0.0.1:8080/",
		"http://10.0.0.7",
		"http://8.8.8.8/",
		"http://2130706433/",
		"http://0x7f000001/",
		"http://0177.0.0.1/",
		"http://127.1/",
		"http://127.0.0.1./",
		"http://[::1]/",
		"http://[::ffff:169.254.169.254]:80/",
	] {
		called(url) == refused("number", url, "tool fetch would call %s by an address in numbers; call it by its name")
	}
}

test_urls_that_can_be_read_in_two_ways if {
	every url in [
		"http://api.partner.example@127.0.0.1/",
		`http://api.partner.example\@localhost/`,
		` http://localhost/`,
		"http:/localhost/",
		"http://api.partner.example/\r\nHost: localhost",
		"http://%6c%6fcalhost/",
		"http://ⓛocalhost/",
		"http://api.partner.example:http/",
		"//localhost/",
		"http://",
		"file:///etc/passwd",
	] {
		called(url) == refused("unclear", url, "tool fetch would call %s, which can be read in two ways")
	}
}

test_names_outside if {
	every url in [
		"https://api.partner.example",
		"https://api.partner.example:8443/v1?next=http://localhost/",
		"https://local.example/",
		"https://4.example/",
		"https://10.0.0.1.nip.example/",
	] {
		called(url) == set()
	}
}

test_an_exempt_host if {
	called("https://intranet.kestrelrow.example/runbooks") == set()
	results := inside_addresses.results with input as {"syscall": {
		"tool": "fetch",
		"effect": "external",
		"args": {"url": "http://localhost:9000/x"},
	}}
		with inside_addresses.exempt_hosts as {"localhost"}
	results == set()
}

test_every_depth_is_looked_at if {
	found("fetch", "external", {"batch": [{"target": "http://localhost/"}]}) == refused(
		"name",
		"http://localhost/",
		"tool fetch would call %s, a name of the own network",
	)
}

test_texts_are_no_urls if {
	found("send-mail", "external", {"body": "open http://localhost/ in your browser", "to": "bo@partner.example"}) == set()
}

test_only_what_reaches_outside if {
	found("write-note", "write", {"content": "http://localhost/"}) == set()
	found("model-call", "external", {"url": "http://localhost/"}) == set()
}

test_hosts_of_requests if {
	every host in ["localhost", "db.internal", "intranet"] {
		found("net-request", "external", {"host": host}) == refused("name", host, "tool net-request would call %s, a name of the own network")
	}
	every host in ["127.0.0.1", "::1"] {
		{result.rule | some result in found("net-request", "external", {"host": host})} == {"inside_addresses.number"}
	}
	every host in ["api.partner.example", "intranet.kestrelrow.example", 7] {
		found("net-request", "external", {"host": host}) == set()
	}
	found("send", "external", {"host": "localhost"}) == set()
}
