package armapi

import (
	"cmp"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// wrongQuery is the answer to a query parameter that can't be read.
func wrongQuery(name, value, want string) error {
	return fail(http.StatusBadRequest, "InvalidQueryParameter", "The query parameter %s is %s: %s is expected.", name, quote(value), want)
}

// getExplain says what happens to a client: ?client=ADDRESS&name=NAME[&port=N].
func (r *request) getExplain() (reply, error) {
	client, err := netip.ParseAddr(r.query("client"))
	if err != nil || client.Zone() != "" {
		return reply{}, wrongQuery("client", r.query("client"), "an address")
	}
	name, err := link.ParseAsked(r.query("name"))
	if err != nil {
		return reply{}, wrongQuery("name", r.query("name"), "a name")
	}
	port := uint64(0)
	if s := r.query("port"); s != "" {
		if port, err = strconv.ParseUint(s, 10, 16); err != nil || port == 0 {
			return reply{}, wrongQuery("port", s, "1 to 65535")
		}
	}
	x, err := r.api.Control.Explain(r.Context(), r.caller, r.subscription(), client, name, uint16(port))
	return ok(x), err
}

// maxFlows bounds the flows of one answer: they change while they are listed, so that there are no pages.
const maxFlows = 10000

func (r *request) listFlows() (reply, error) {
	flows, err := r.api.Control.Flows(r.Context(), r.caller, r.subscription())
	if err != nil {
		return reply{}, err
	}
	all := []control.Flow{}
	for f := range flows {
		if all = append(all, f); len(all) == maxFlows {
			break
		}
	}
	return list(all), nil
}

func (r *request) listUsages() (reply, error) {
	all, err := r.api.Control.Usage(r.caller, r.subscription())
	if err != nil {
		return reply{}, err
	}
	return list(all), nil
}

// listAudit answers with the entries that ?since=&until=&actor=&object=&action= select, oldest first. $top
// asks for so many, the newest; after=REVISION for those that follow, page by page.
func (r *request) listAudit() (reply, error) {
	q := control.AuditQuery{Subscription: r.subscription(), Actor: r.query("actor"), Object: r.query("object"), Action: r.query("action")}
	for name, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if s := r.query(name); s != "" {
			t, err := time.Parse(time.RFC3339, s)
			if err != nil {
				return reply{}, wrongQuery(name, s, "a time such as 2026-11-01T12:00:00Z")
			}
			*at = t
		}
	}
	var err error
	if q.Limit, err = r.top(); err != nil {
		return reply{}, err
	}
	token, err := r.skipToken()
	if err != nil {
		return reply{}, err
	}
	from := cmp.Or(token, r.query("after"))
	forward := from != ""
	if forward {
		if q.After, err = strconv.ParseUint(from, 10, 63); err != nil {
			return reply{}, wrongQuery("after", from, "a revision")
		}
		q.Forward = true
	}
	all, err := r.api.Control.Audit(r.Context(), r.caller, q)
	if err != nil {
		return reply{}, err
	}
	body := listBody{Value: make([]any, 0, len(all))}
	for _, e := range all {
		body.Value = append(body.Value, e)
	}
	if forward && len(all) == q.Limit {
		body.NextLink = r.nextLink(strconv.FormatUint(all[len(all)-1].Revision, 10))
	}
	return ok(body), nil
}

// lineBody is one line of the audit record as it is stored; bytes are base64 in JSON.
type lineBody struct {
	Revision uint64 `json:"revision"`
	Line     []byte `json:"line"`
}

// A page of lines has at most so many, and so many bytes before the last one.
const (
	maxLines     = 1000
	maxLineBytes = 4 << 20
)

// listAuditLines answers with the raw record from ?from=REVISION on, for an operator to verify. The record
// goes on where the answer ends, until one is empty.
func (r *request) listAuditLines() (reply, error) {
	from := uint64(1)
	if s := r.query("from"); s != "" {
		var err error
		if from, err = strconv.ParseUint(s, 10, 63); err != nil || from == 0 {
			return reply{}, wrongQuery("from", s, "a revision")
		}
	}
	lines, err := r.api.Control.AuditLines(r.Context(), r.caller, from)
	if err != nil {
		return reply{}, err
	}
	all, size := []lineBody{}, 0
	for l, err := range lines {
		if err != nil {
			return reply{}, err
		}
		all = append(all, line(l))
		if size += len(l.Bytes); len(all) == maxLines || size > maxLineBytes {
			break
		}
	}
	return list(all), nil
}

func line(l store.Line) lineBody { return lineBody{l.Revision, l.Bytes} }

func (r *request) getStatus() (reply, error) {
	s, err := r.api.Control.Status(r.caller)
	return ok(s), err
}

// getBackup streams the state of one moment.
func (r *request) getBackup() (reply, error) {
	write, err := r.api.Control.Backup(r.caller)
	if err != nil {
		return reply{}, err
	}
	return reply{stream: func(w io.Writer) error { return write(r.Context(), w) }}, nil
}
