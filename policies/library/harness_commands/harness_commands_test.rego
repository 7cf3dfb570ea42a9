package agentos.admission.rules.harness_commands_test

import data.agentos.admission.rules.harness_commands

found(spec) := results if {
	results := harness_commands.results with input as {"resources": [
		{"kind": "Model", "metadata": {"name": "m"}, "spec": {}},
		{"kind": "Agent", "metadata": {"name": "triage"}, "spec": spec},
	]}
}

driven(command) := found({"harness": {"command": command, "sandbox": "brain"}})

test_known_commands if {
	every command in [["sh", "/opt/harness/loop.sh"], ["sh", "/opt/harness/loop.sh", "x"], ["python", "-I", "/opt/harness/loop.py"]] {
		driven(command) == set()
	}
}

test_other_commands if {
	every command in [["sh"], ["sh", "-c", "/opt/harness/loop.sh"], ["python", "/opt/harness/loop.py"], ["/opt/harness/loop.sh"]] {
		driven(command) == {{
			"rule": "harness_commands.command",
			"effect": "deny",
			"reason": sprintf("agent triage would be driven by %s, which is not on the list", [concat(" ", command)]),
		}}
	}
}

test_other_places if {
	every harness in [{"command": ["sh", "/opt/harness/loop.sh"]}, {"command": ["sh", "/opt/harness/loop.sh"], "sandbox": "mine"}] {
		found({"harness": harness}) == {{
			"rule": "harness_commands.sandbox",
			"effect": "deny",
			"reason": "the harness of agent triage would work in a sandbox that is not on the list",
		}}
	}
}

test_the_built_in_loop if found({"tools": ["read"]}) == set()
