package cli

import (
	"net/url"
	"strings"
)

// The providers of the API.
const (
	networkProvider = "Microsoft.Network"
	posternProvider = "Postern.Network"
)

// inSubscription returns a path of a provider in the subscription.
func (k *client) inSubscription(provider, rest string) (string, error) {
	if k.Subscription == "" {
		return "", usagef("no subscription: give --subscription or POSTERN_SUBSCRIPTION")
	}
	if err := checkSegment("subscription", k.Subscription); err != nil {
		return "", err
	}
	return "/subscriptions/" + k.Subscription + "/providers/" + provider + "/" + rest, nil
}

// inGroup returns a path of a provider in the resource group: the type and the names below it.
func (k *client) inGroup(provider string, rest ...string) (string, error) {
	if k.Group == "" {
		return "", usagef("no resource group: give --group or POSTERN_GROUP")
	}
	if err := checkSegment("resource group", k.Group); err != nil {
		return "", err
	}
	for _, name := range rest {
		if err := checkSegment("name", name); err != nil {
			return "", err
		}
	}
	sub, err := k.inSubscription(provider, "")
	if err != nil {
		return "", err
	}
	group := "/resourceGroups/" + k.Group + "/providers/"
	return strings.Replace(sub, "/providers/", group, 1) + strings.Join(rest, "/"), nil
}

// typeList returns where a type of Microsoft.Network is listed: in the group where one is given.
func (k *client) typeList(typ string) (string, error) {
	if k.Group == "" {
		return k.inSubscription(networkProvider, typ)
	}
	return k.inGroup(networkProvider, typ)
}

// resourceID is an ID of the API, taken apart.
type resourceID struct {
	subscription, group, provider string
	names                         []string // type, name, type, name
}

// parseResourceID takes an ID apart. ok is false for what isn't one.
func parseResourceID(s string) (id resourceID, ok bool) {
	seg := strings.Split(strings.Trim(s, "/"), "/")
	if len(seg) < 8 || len(seg)%2 != 0 || !strings.HasPrefix(s, "/") ||
		!strings.EqualFold(seg[0], "subscriptions") || !strings.EqualFold(seg[2], "resourceGroups") || !strings.EqualFold(seg[4], "providers") {
		return id, false
	}
	for i, name := range seg {
		if i%2 == 1 && i != 5 && !segment.MatchString(name) {
			return id, false
		}
	}
	return resourceID{seg[1], seg[3], seg[5], seg[6:]}, true
}

// last returns the name at the end of an ID, or what isn't an ID as it is.
func last(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// value makes the query of one parameter.
func value(name, v string) url.Values { return url.Values{name: {v}} }
