# What this node's clients may do, beyond what the state says. The program asks for data.postern.flows.verdict, an object
# with allow, a reason of a refusal for the flow log, and for how many seconds the same question has the same answer.
package postern.flows

# Networks of people, who have no business in databases of payments.
offices := {"10.1.0.0/16", "fd00:1::/64"}

default verdict := {"allow": false, "reason": "no rule of the Rego policy allows it"}

verdict := {"allow": true, "seconds": 60} if count(denials) == 0

verdict := {"allow": false, "reason": concat("; ", sort(denials))} if count(denials) > 0

denials contains "people don't reach payments" if {
	startswith(input.service.id, "payments-")
	some prefix in offices
	net.cidr_contains(prefix, input.source)
}

denials contains sprintf("%s is not a tenant of service %s", [input.endpoint.tenant, input.service.id]) if {
	tenants := data.tenants[input.service.id]
	not input.endpoint.tenant in tenants
}

denials contains "test names are for test services" if {
	endswith(input.name, ".test.example")
	not startswith(input.service.id, "test-")
}
