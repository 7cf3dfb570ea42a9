package agentos.admission.rules.owner_team_test

import data.agentos.admission.rules.owner_team

agent(governance) := {"kind": "Agent", "metadata": {"name": "clerk"}, "spec": {"governance": governance}}

found(governance) := results if {
	results := owner_team.results with input as {"resources": [
		{"kind": "Model", "metadata": {"name": "m"}, "spec": {}},
		agent(governance),
	]}
}

no_team(owner) := {
	"rule": "owner_team.owner",
	"effect": "deny",
	"reason": sprintf("agent clerk is owned by %s; name a team, such as team-service@kestrelrow.example", [json.marshal(owner)]),
}

no_purpose(purpose) := {
	"rule": "owner_team.purpose",
	"effect": "deny",
	"reason": sprintf("agent clerk has the purpose %s; say in a sentence what it is for", [json.marshal(purpose)]),
}

test_a_team_and_a_purpose if {
	found({"owner": "team-service@kestrelrow.example", "purpose": "Sort incoming mail."}) == set()
}

test_no_team if {
	every owner in [
		"bo@kestrelrow.example",
		"team-service@kestrelrow.example.evil",
		"x team-service@kestrelrow.example",
		"team-service@kestrelrowXexample",
		"",
	] {
		found({"owner": owner, "purpose": "Sort incoming mail."}) == {no_team(owner)}
	}
}

test_no_purpose if {
	every purpose in ["", "test", "to do"] {
		found({"owner": "team-service@kestrelrow.example", "purpose": purpose}) == {no_purpose(purpose)}
	}
}

test_nothing_told if found({}) == {no_team(""), no_purpose("")}
