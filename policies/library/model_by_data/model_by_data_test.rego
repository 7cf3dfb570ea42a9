package agentos.syscall.rules.model_by_data_test

import data.agentos.syscall.rules.model_by_data

found(tool, args, agent_labels, session_labels) := results if {
	results := model_by_data.results with input as {
		"syscall": {"tool": tool, "args": args},
		"agent": {"name": "clerk", "labels": agent_labels},
		"session": {"labels": session_labels},
	}
}

of_agent(model) := {
	"rule": "model_by_data.agent",
	"effect": "deny",
	"reason": sprintf("agent clerk works with data of class pii, for which model %s is not approved", [model]),
}

of_session(model) := {
	"rule": "model_by_data.session",
	"effect": "deny",
	"reason": sprintf("the session has read data labelled health, for which model %s is not approved", [model]),
}

test_an_approved_model if found("model-call", {"model": "inhouse-large"}, {"data": "pii"}, ["health"]) == set()

test_another_model_for_a_sensitive_agent if {
	found("model-call", {"model": "hosted"}, {"data": "pii"}, ["untrusted"]) == {of_agent(`"hosted"`)}
}

test_another_model_after_sensitive_data if {
	found("model-call", {"model": "my-inhouse-model"}, {"data": "public"}, ["health"]) == {of_session(`"my-inhouse-model"`)}
}

test_a_model_that_is_not_told if {
	found("model-call", {}, {"data": "pii"}, ["health"]) == {of_agent("null"), of_session("null")}
	found("model-call", {"model": 7}, {"data": "pii"}, []) == {of_agent("7")}
}

test_other_data if found("model-call", {"model": "hosted"}, {}, ["untrusted"]) == set()

test_tools_are_not_its_matter if found("read-mail", {"model": "hosted"}, {"data": "pii"}, ["health"]) == set()
