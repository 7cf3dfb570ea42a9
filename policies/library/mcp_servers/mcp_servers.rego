# METADATA
# title: mcp servers
# description: only known programs are started as MCP servers
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/mcp_servers/README.md
package agentos.admission.rules.mcp_servers

# How a command must begin; more words may follow.
allowed_commands := [
	["mcp-server-fetch"],
	["mcp-server-time"],
	["python", "-m", "mcp_server_time"],
]

# Servers that are there already, by the beginning of their address.
allowed_addresses := {"https://mcp.partner.example/"}

# Variables that a server may be given. Others change which code runs (LD_PRELOAD, PATH, PYTHONPATH).
allowed_variables := {"LANG", "LOG_LEVEL", "TZ"}

# METADATA
# title: command
# description: the command of a tool is not a known one
results contains {"rule": "mcp_servers.command", "effect": "deny", "reason": reason} if {
	some tool, server in servers
	command := server.command
	not known(command)
	reason := sprintf("tool %s would start %s, which is not on the list", [tool, concat(" ", command)])
}

# METADATA
# title: address
# description: the address of a server is not a known one
results contains {"rule": "mcp_servers.address", "effect": "deny", "reason": reason} if {
	some tool, server in servers
	url := server.url
	count([1 | some begin in allowed_addresses; startswith(url, begin)]) == 0
	reason := sprintf("tool %s would ask %s, which is not on the list", [tool, url])
}

# METADATA
# title: variable
# description: a server is given a variable that is not a known one
results contains {"rule": "mcp_servers.variable", "effect": "deny", "reason": reason} if {
	some tool, server in servers
	some name in object.keys(object.get(server, "env", {}))
	not name in allowed_variables
	reason := sprintf("tool %s would give its server the variable %s, which is not on the list", [tool, name])
}

servers[tool.metadata.name] := tool.spec.driver.mcp.server if {
	some tool in input.resources
	tool.kind == "Tool"
}

known(command) if {
	some begin in allowed_commands
	array.slice(command, 0, count(begin)) == begin
}
