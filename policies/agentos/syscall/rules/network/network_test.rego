package agentos.syscall.rules.network_test

import data.agentos.syscall.rules.network

tools := {
	"issues": {"driver": "http", "reach": [{"host": "api.github.com", "ports": [443], "paths": ["/repos", "/repos/**"]}]},
	"remote": {"driver": "mcp", "reach": [{"host": "mcp.acme.example", "ports": [8443]}]},
	"lost": {"driver": "http", "reach": []},
	"git": {"driver": "exec"},
	"server": {"driver": "mcp"},
	"read": {"driver": "builtin"},
	"ask": {"driver": "delegate"},
}

sandboxes := {
	"offline": {"reach": []},
	"open": {"reach": [
		{"host": "pypi.org", "ports": [443]},
		{"host": "*.pythonhosted.org", "ports": [443, 8443]},
		{"host": "intranet", "ports": [80], "methods": ["GET", "HEAD"], "paths": ["/wiki/*", "/files/**"]},
		{"host": "upload.acme.example", "ports": [443], "methods": ["POST"]},
		{"host": "10.1.0.7", "ports": [80]},
		{"host": "::1", "ports": [80]},
	]},
}

base := {
	"call": "c-1", "tool": "git", "sandbox": "open",
	"scheme": "https", "host": "pypi.org", "port": 443, "method": "GET", "path": "/simple/",
}

decided(args) := results if {
	results := network.results with input as {"syscall": {"tool": "net-request", "args": args}}
		with data.agentos.tools as tools
		with data.agentos.sandboxes as sandboxes
}

ids(change) := {result.rule | some result in decided(object.union(base, change))}

without(fields) := {result.rule | some result in decided(object.remove(base, fields))}

tunnel(host, port) := {result.rule | some result in decided(object.union(
	object.remove(base, ["method", "path"]),
	{"scheme": "tunnel", "host": host, "port": port},
))}

passes := set()

undeclared := {"network.undeclared"}

malformed := {"network.malformed"}

test_what_the_sandbox_lists if {
	ids({}) == passes
	ids({"tool": "server"}) == passes
	tunnel("pypi.org", 443) == passes
}

test_other_tools_are_not_its_matter if {
	every args in [
		{"host": "evil.example"},
		object.union(base, {"host": "evil.example"}),
		object.union(object.remove(base, ["method", "path"]), {"scheme": "tunnel", "host": "intranet", "port": 80}),
	] {
		results := network.results with input as {"syscall": {"tool": "git", "args": args}}
			with data.agentos.tools as tools
			with data.agentos.sandboxes as sandboxes
		results == set()
	}
}

test_another_host if {
	decided(object.union(base, {"host": "evil.example"})) == {{
		"rule": "network.undeclared",
		"effect": "deny",
		"reason": "tool git may not reach evil.example:443 (GET /simple/): sandbox open does not list it; an operator can add it to network.allow",
	}}
	tunnel("evil.example", 443) == undeclared
}

test_a_name_is_that_name_alone if {
	every host in ["a.pypi.org", "pypi.org.evil.example", "xpypi.org", "pypi_org", "pypi.orgx"] {
		ids({"host": host}) == undeclared
	}
}

test_any_host_below_a_name_and_not_itself if {
	ids({"host": "files.pythonhosted.org"}) == passes
	ids({"host": "a.b.pythonhosted.org"}) == passes
	ids({"host": "pythonhosted.org"}) == undeclared
	ids({"host": "evilpythonhosted.org"}) == undeclared
	ids({"host": "files.pythonhosted.org.evil.example"}) == undeclared
}

test_nothing_is_below_an_address if {
	every host in ["1.10.1.0.7", "10.1.0.8"] {
		ids({"host": host, "port": 80, "scheme": "http"}) == undeclared
	}
	ids({"host": "10.1.0.7", "port": 80, "scheme": "http"}) == passes
	ids({"host": "::1", "port": 80, "scheme": "http"}) == passes
	odd := {"offline": {"reach": [{"host": "*.0.7", "ports": [443]}, {"host": "*.:1", "ports": [443]}]}}
	every host in ["10.1.0.7", "::.:1"] {
		network.results != passes with input as {"syscall": {"tool": "net-request", "args": object.union(base, {
			"sandbox": "offline",
			"host": host,
		})}}
			with data.agentos.tools as tools
			with data.agentos.sandboxes as odd
	}
}

test_another_port if {
	ids({"port": 80}) == undeclared
	ids({"host": "files.pythonhosted.org", "port": 8443}) == passes
	ids({"host": "files.pythonhosted.org", "port": 8080}) == undeclared
}

test_methods if {
	every method in ["GET", "HEAD"] {
		ids({"scheme": "http", "host": "intranet", "port": 80, "path": "/wiki/a", "method": method}) == passes
	}
	every method in ["POST", "DELETE", "GE"] {
		ids({"scheme": "http", "host": "intranet", "port": 80, "path": "/wiki/a", "method": method}) == undeclared
	}
	ids({"host": "upload.acme.example", "method": "POST", "path": "/any/where"}) == passes
}

test_paths if {
	every path in ["/wiki/a", "/wiki/", "/files/a", "/files/a/b/c"] {
		ids({"scheme": "http", "host": "intranet", "port": 80, "path": path}) == passes
	}
	every path in ["/", "/wiki", "/wiki/a/b", "/wikis/a", "/Wiki/a", "/files", "/x/files/a"] {
		ids({"scheme": "http", "host": "intranet", "port": 80, "path": path}) == undeclared
	}
}

test_a_tunnel_where_methods_or_paths_are_limited if {
	tunnel("intranet", 80) == {"network.opaque"}
	tunnel("upload.acme.example", 443) == {"network.opaque"}
	tunnel("upload.acme.example", 80) == undeclared
	some result in decided(object.union(object.remove(base, ["method", "path"]), {"scheme": "tunnel", "host": "intranet", "port": 80}))
	startswith(result.reason, "tool git may not open a tunnel to intranet:80: only some methods or paths")
	endswith(result.reason, "inspect: true in the Sandbox")
}

test_no_place_is_lent_by_another if {
	# The host of one destination and the methods of another do not add up.
	ids({"host": "upload.acme.example", "method": "GET"}) == undeclared
	ids({"scheme": "http", "host": "intranet", "port": 443, "path": "/wiki/a"}) == undeclared
}

test_a_sandbox_that_lists_nothing if {
	ids({"sandbox": "offline"}) == undeclared
	ids({"sandbox": "ghost"}) == undeclared
	ids({"sandbox": 7}) == undeclared
	without(["sandbox"]) == undeclared
}

test_the_address_of_a_tool_that_sends_requests_itself if {
	every path in ["/repos", "/repos/a/b"] {
		ids({"tool": "issues", "host": "api.github.com", "path": path}) == passes
	}
	ids({"tool": "issues", "host": "api.github.com", "path": "/user"}) == undeclared
	ids({"tool": "issues"}) == undeclared
	ids({"tool": "remote", "host": "mcp.acme.example", "port": 8443, "method": "POST"}) == passes
	ids({"tool": "remote"}) == undeclared
	ids({"tool": "lost"}) == undeclared
}

test_a_tool_that_sends_nothing if {
	every tool in ["read", "ask", "ghost"] {
		ids({"tool": tool}) == undeclared
		some result in decided(object.remove(object.union(base, {"tool": tool}), ["sandbox"]))
		endswith(result.reason, "it sends no requests")
	}
}

test_what_is_not_told if {
	every field in ["tool", "scheme", "host", "port", "method", "path"] {
		without([field]) == malformed
	}
	without(["method", "path"]) == malformed
}

test_what_is_told_in_another_form if {
	every change in [
		{"host": "PyPI.org"}, {"host": "pypi.org."}, {"host": "pypi..org"}, {"host": ".pypi.org"}, {"host": ""}, {"host": "*.org"},
		{"host": "[::1]"}, {"host": "pypi.org/x"}, {"host": "pypi.org\n"}, {"host": ["pypi.org"]}, {"host": null},
		{"port": "443"}, {"port": 0}, {"port": -1}, {"port": 65536}, {"port": 443.5}, {"port": null}, {"port": true},
		{"scheme": "HTTPS"}, {"scheme": "ftp"}, {"scheme": null}, {"scheme": "tunnel"},
		{"method": "get"}, {"method": "GET "}, {"method": ""}, {"method": null}, {"method": ["GET"]},
		{"path": "simple"}, {"path": ""}, {"path": "/a b"}, {"path": "/ä"}, {"path": "/a\n"}, {"path": null}, {"path": ["/"]},
		{"path": "/a//b"}, {"path": "/a/../b"}, {"path": "/a/./b"}, {"path": "/a/.."}, {"path": "/.."}, {"path": "/a?b"}, {"path": "/a#b"},
		{"path": `/a\b`}, {"path": "/a%2fb"}, {"path": "/a%2Fb"}, {"path": "/%2e%2E/b"}, {"path": "/a%5Cb"}, {"path": "/a%00"},
		{"tool": null}, {"tool": ["git"]},
	] {
		ids(change) == malformed
	}
}

test_a_tunnel_of_which_too_much_is_told if {
	every change in [{"method": "GET"}, {"path": "/"}, {"method": null}, {"path": false}] {
		args := object.union(object.remove(base, ["method", "path"]), object.union({"scheme": "tunnel"}, change))
		{result.rule | some result in decided(args)} == malformed
	}
}

test_a_request_of_which_nothing_is_told if {
	{result.rule | some result in decided({})} == malformed
	{result.rule | some result in network.results} == malformed with input as {"syscall": {"tool": "net-request"}}
}

test_without_any_data if {
	{result.rule | some result in network.results} == undeclared with input as {"syscall": {"tool": "net-request", "args": base}}
		with data.agentos.tools as {}
		with data.agentos.sandboxes as {}
}

# What a proxy asks about that was sent something which is no request, even where everything is reachable.
test_what_is_no_request_never_leaves if {
	args := {"call": "c-1", "tool": "git", "sandbox": "open", "scheme": "unfit", "host": "unfit.invalid", "port": 1}
	{result.rule | some result in decided(args)} == malformed
}
