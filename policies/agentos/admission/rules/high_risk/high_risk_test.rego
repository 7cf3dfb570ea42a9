package agentos.admission.rules.high_risk_test

import data.agentos.admission.rules.high_risk

agent(risk) := {"kind": "Agent", "metadata": {"name": "payer"}, "spec": {"governance": {"risk": risk}}}

tool(effect) := {"kind": "Tool", "metadata": {"name": "pay"}, "spec": {"effect": effect}}

grant(approval) := {
	"kind": "ToolGrant",
	"metadata": {"name": "may-pay"},
	"spec": {"agents": ["payer"], "tools": ["pay"], "approval": approval},
}

found(resources) := results if {
	results := high_risk.results with input as {"resources": resources}
}

unattended := {{
	"rule": "high_risk.unattended",
	"effect": "deny",
	"reason": "toolgrant may-pay gives agent payer (risk: high) the external tool pay without approval; set approval: required",
}}

test_high_risk_and_external_without_approval if found([agent("high"), tool("external"), grant("none")]) == unattended

test_approval_defaults_to_none if {
	found([agent("high"), tool("external"), json.remove(grant("none"), ["/spec/approval"])]) == unattended
}

test_with_approval if found([agent("high"), tool("external"), grant("required")]) == set()

test_limited_risk if found([agent("limited"), tool("external"), grant("none")]) == set()

test_a_tool_that_stays_inside if found([agent("high"), tool("write"), grant("none")]) == set()

test_another_tenants_tool if {
	found([agent("high"), object.union(tool("external"), {"metadata": {"name": "pay", "tenant": "acme"}}), grant("none")]) == set()
}
