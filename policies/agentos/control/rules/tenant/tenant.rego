# METADATA
# title: tenant
# description: a principal acts on its own tenant; what concerns the whole fleet is for principals of the fleet
# schemas:
#   - input: schema["control-input"]
# related_resources:
#   - ref: policies/agentos/control/rules/tenant/README.md
package agentos.control.rules.tenant

# METADATA
# title: foreign
# description: a principal of one tenant names another
results contains {"rule": "tenant.foreign", "effect": "deny", "reason": reason} if {
	not at_home
	reason := sprintf(
		"principal %s acts on tenant %s only; a principal of that tenant or of the fleet can",
		[name, json.marshal(home)],
	)
}

# METADATA
# title: fleet
# description: a verb that concerns every tenant, from a principal of one
results contains {"rule": "tenant.fleet", "effect": "deny", "reason": reason} if {
	input.verb in fleet_verbs
	not input.principal.tenant == "*"
	reason := sprintf("%s concerns the whole fleet; only a principal of the fleet can", [input.verb])
}

default home := null

home := input.principal.tenant

default name := "(unnamed)"

name := input.principal.name

at_home if input.principal.tenant == "*"

at_home if input.principal.tenant == input.tenant

fleet_verbs := {
	"audit.rebuild",
	"principal.create",
	"principal.list",
	"principal.revoke",
	"principal.rotate",
	"runtime.shutdown",
}
