package agentos.admission.rules.mcp_servers_test

import data.agentos.admission.rules.mcp_servers

found(driver) := results if {
	results := mcp_servers.results with input as {"resources": [
		{"kind": "Model", "metadata": {"name": "m"}, "spec": {}},
		{"kind": "Tool", "metadata": {"name": "convert-time"}, "spec": {"driver": driver}},
	]}
}

started(command) := found({"mcp": {"server": {"command": command}, "tool": "convert_time"}})

test_known_commands if {
	every command in [["mcp-server-time"], ["mcp-server-time", "--local-timezone", "UTC"], ["python", "-m", "mcp_server_time"]] {
		started(command) == set()
	}
}

test_other_commands if {
	every command in [["bash", "-c", "mcp-server-time"], ["python", "-m"], ["python", "-c", "x"], ["./mcp-server-time"]] {
		started(command) == {{
			"rule": "mcp_servers.command",
			"effect": "deny",
			"reason": sprintf("tool convert-time would start %s, which is not on the list", [concat(" ", command)]),
		}}
	}
}

test_known_variables if {
	found({"mcp": {"server": {"command": ["mcp-server-time"], "env": {"TZ": "UTC"}}}}) == set()
}

test_other_variables if {
	found({"mcp": {"server": {"command": ["mcp-server-time"], "env": {"TZ": "UTC", "LD_PRELOAD": "x.so"}}}}) == {{
		"rule": "mcp_servers.variable",
		"effect": "deny",
		"reason": "tool convert-time would give its server the variable LD_PRELOAD, which is not on the list",
	}}
}

test_builtin_tools if found({"builtin": {"primitive": "read"}}) == set()

test_known_addresses if found({"mcp": {"server": {"url": "https://mcp.partner.example/mcp"}, "tool": "x"}}) == set()

test_other_addresses if {
	every url in ["https://mcp.partner.example.evil.example/mcp", "http://mcp.partner.example/mcp", "https://mcp.partner.example:8443/"] {
		found({"mcp": {"server": {"url": url}, "tool": "x"}}) == {{
			"rule": "mcp_servers.address",
			"effect": "deny",
			"reason": sprintf("tool convert-time would ask %s, which is not on the list", [url]),
		}}
	}
}
