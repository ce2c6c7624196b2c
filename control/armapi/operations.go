package armapi

import "slices"

// Where operations are: below a subscription, and below a resource group of it.
const (
	inSubscription = "/subscriptions/{subscription}"
	inGroup        = "/subscriptions/{subscription}/resourceGroups/{group}"
	providers      = "/providers/"
)

// operations returns every row of the API.
func operations() []operation {
	return slices.Concat(frontOperations, networkOperations, dnsOperations, posternOperations)
}
