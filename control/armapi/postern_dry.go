package armapi

import (
	"net/http"
	"strings"

	"github.com/postern-link/postern/control"
)

// dry reports whether the query says dryRun=true: nothing is changed, and the answer is what would be.
func (r *request) dry() bool { return strings.EqualFold(r.query("dryRun"), "true") }

// mayBeDry refuses a dry run of an operation that has none: who asks for one must not find it done.
func (r *request) mayBeDry() error {
	switch v := r.query("dryRun"); {
	case v == "", strings.EqualFold(v, "false"):
		return nil
	case !r.dry():
		return wrongQuery("dryRun", v, "true or false")
	case !r.operation.dry:
		return fail(http.StatusBadRequest, "InvalidQueryParameter", "There is no dry run of this operation. Nothing was done.")
	}
	return nil
}

// planned answers a dry run with what the result would do.
func (r *request) planned(res control.Result) (reply, error) {
	p, err := r.api.Control.PlanOf(r.caller, r.subscription(), res)
	return ok(p), err
}
