package agentos.admission.rules.inline_secrets_test

import data.agentos.admission.rules.inline_secrets

found(kind, spec) := results if {
	results := inline_secrets.results with input as {"resources": [{"kind": kind, "metadata": {"name": "x"}, "spec": spec}]}
}

held(kind, what, place) := {{
	"rule": "inline_secrets.found",
	"effect": "deny",
	"reason": sprintf("%s x seems to hold %s in %s", [kind, what, place]),
}}

tool(env) := {"driver": {"mcp": {"server": {"command": ["s"], "env": env}, "tool": "t"}}}

test_in_instructions if {
	found("Agent", {"instructions": "Log in with password: heron-trundle-88"}) == held("agent", "a password", "instructions")
	found("Agent", {"instructions": "Never ask for a password. Use the token that you get."}) == set()
}

test_in_a_command if {
	key := "AKIAABCDEFGHIJKLMNOP"
	found("Tool", {"driver": {"mcp": {"server": {"command": ["s", "--key", key]}}}}) == held(
		"tool",
		"an access key",
		"driver.mcp.server.command.2",
	)
}

test_in_a_url if {
	found("Model", {"anthropic": {"baseUrl": "https://bo:hunter2@models.example/"}}) == held(
		"model",
		"a URL with a password",
		"anthropic.baseUrl",
	)
	found("Model", {"anthropic": {"baseUrl": "https://models.example:8443/"}}) == set()
}

test_a_private_key if {
	found("Agent", {"instructions": "-----BEGIN PRIVATE KEY-----\nMC4"}) == held("agent", "a private key", "instructions")
}

test_policies_hold_patterns if found("Policy", {"modules": [{"source": "AKIAABCDEFGHIJKLMNOP"}]}) == set()

test_variables_by_name if {
	every name in ["DB_PASSWORD", "API_KEY", "github_token", "CLIENT_SECRET", "apikey"] {
		found("Tool", tool({name: "x"})) == {{
			"rule": "inline_secrets.variable",
			"effect": "deny",
			"reason": sprintf("tool x holds the value of %s; declare a Secret, and name it under credentials", [name]),
		}}
	}
}

test_other_variables if {
	found("Tool", tool({"TZ": "UTC", "TOKEN_LIMIT": "7", "API_KEY": ""})) == set()
	found("Tool", {"driver": {"builtin": {"primitive": "read"}}}) == set()
}

of(kind, spec) := {result.reason | some result in results; result.rule == "inline_secrets.variable"} if {
	results := inline_secrets.results with input as {"resources": [{"kind": kind, "metadata": {"name": "x"}, "spec": spec}]}
}

test_variables_and_headers_wherever_they_are_given if {
	every spec in [
		{"driver": {"exec": {"command": ["x"], "env": {"CRM_TOKEN": "v"}}}},
		{"driver": {"http": {"url": "https://x", "headers": {"Authorization": "v"}}}},
		{"driver": {"mcp": {"server": {"url": "https://x", "headers": {"X-Api-Key": "v"}}, "tool": "x"}}},
	] {
		count(of("Tool", spec)) == 1
	}
	of("Sandbox", {"env": {"DB_PASSWORD": "v"}}) == {
		"sandbox x holds the value of DB_PASSWORD; declare a Secret, and name it under credentials",
	}
}

test_names_of_secrets_are_none if {
	of("Tool", {"credentials": [{"secret": "crm", "env": "CRM_TOKEN"}, {"secret": "crm", "header": "Authorization"}]}) == set()
	of("Tool", {"driver": {"http": {"query": {"token": "token"}, "headers": {"Accept": "text/plain"}}}}) == set()
	of("Secret", {"env": "CRM_TOKEN"}) == set()
}
