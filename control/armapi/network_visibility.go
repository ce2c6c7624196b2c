package armapi

import (
	"errors"
	"iter"
	"slices"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// postVisibility says whether an alias is one that networks of the subscription may ask for. One that
// isn't there gives the same answer as one that isn't visible.
func (r *request) postVisibility() (reply, error) {
	var body struct {
		Alias string `json:"privateLinkServiceAlias"`
	}
	if err := r.decode(&body); err != nil {
		return reply{}, err
	}
	if body.Alias == "" {
		return reply{}, invalid("privateLinkServiceAlias", "it is missing")
	}
	_, err := r.api.Control.VisibleService(r.caller, r.subscription(), strings.ToLower(body.Alias))
	if err != nil && !errors.Is(err, control.ErrNoService) {
		return reply{}, err
	}
	return ok(struct {
		Visible bool `json:"visible"`
	}{err == nil}), nil
}

// autoApprovedService is a service that needs no decision.
type autoApprovedService struct {
	Service string `json:"privateLinkService"`
}

// listAutoApproved lists the services whose lists name the subscription, or its tenant. Those that approve
// anyone are found by their alias only: a list of them would tell what that is to keep.
func (r *request) listAutoApproved() (reply, error) {
	sub := r.subscription()
	named := []link.Party{link.Party("subscription/" + sub)}
	if tenant := r.tenantOf().Name; tenant != "" {
		named = append(named, link.Party("tenant/"+tenant))
	}
	here := func(yield func(*link.Service) bool) {
		for v := range r.view().Services() {
			names := func(list []link.Party) bool {
				return slices.ContainsFunc(list, func(p link.Party) bool { return slices.Contains(named, p) })
			}
			own := v.ID.Subscription() == sub && slices.Contains(v.AutoApprove, link.Anyone)
			if (own || names(v.AutoApprove)) && !names(v.Reject) && !slices.Contains(v.Reject, link.Anyone) && !yield(v) {
				return
			}
		}
	}
	return page(r, held(slices.Collect(iter.Seq[*link.Service](here)), (*link.Service).Key), (*link.Service).Key, func(v *link.Service) (any, error) {
		return autoApprovedService{r.api.serviceID(v)}, nil
	})
}

// endpointType is something that endpoints can be made of: private link services alone.
type endpointType struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	Type     string `json:"type"`
	Resource string `json:"resourceName"`
	Title    string `json:"displayName"`
}

func (r *request) listEndpointTypes() (reply, error) {
	name := strings.ReplaceAll(typeService, "/", ".")
	return list([]endpointType{{
		Name: name, Type: "Microsoft.Network/AvailablePrivateEndpointTypes", Resource: typeService, Title: typeService,
		ID: "/subscriptions/" + r.subscription() + "/providers/Microsoft.Network/AvailablePrivateEndpointTypes/" + name,
	}}), nil
}
