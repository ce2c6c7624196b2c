package armapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"github.com/postern-link/postern/control"
)

// reply is what a handler answers with.
type reply struct {
	status int // 0: 200
	body   any // nil: none
	header http.Header
	// stream writes a body that is too large to be held; body is nil then. nil: no such body. An error
	// cuts the answer, so that nobody takes it for whole.
	stream func(w io.Writer) error
}

// ok answers with a resource or another value.
func ok(body any) reply { return reply{status: http.StatusOK, body: body} }

// created answers a PUT: 201 where the object is new, else 200.
func created(res control.Result, body any) reply {
	if res.Created {
		return reply{status: http.StatusCreated, body: body}
	}
	return ok(body)
}

// deleted answers a DELETE: 200, or 204 where there was nothing.
func deleted(res control.Result) reply {
	if res.Changed {
		return reply{status: http.StatusOK}
	}
	return reply{status: http.StatusNoContent}
}

// listBody is the body of a list. Value is [] where it is empty: Terraform's provider needs it there.
type listBody struct {
	Value    []any  `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

// list answers with all of a list that is short by nature. Others are for [page].
func list[T any](values []T) reply {
	body := listBody{Value: make([]any, 0, len(values))}
	for _, v := range values {
		body.Value = append(body.Value, v)
	}
	return ok(body)
}

// write sends a reply and returns its status.
func (a *API) write(w http.ResponseWriter, r *request, rep reply) int {
	h := w.Header()
	for k, v := range rep.header {
		h[k] = v
	}
	if rep.status == 0 {
		rep.status = http.StatusOK
	}
	var b []byte
	if rep.body != nil {
		var err error
		if b, err = encode(rep.body); err != nil {
			a.Log.Error("rendering an answer", "operation", r.operation.label(), "err", err)
			rep = failure(internalError())
			b, _ = encode(rep.body) // a struct of strings
		}
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	h.Set("X-Ms-Request-Id", r.id128)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if tag := tagOf(rep.body); tag != "" {
		h.Set("ETag", tag)
	}
	switch r.Method {
	case http.MethodPut, http.MethodPatch, http.MethodDelete:
		// Each answer to a write is final: Terraform's SDK needs not wait 10 s before it looks.
		h.Set("X-Go-Azure-Sdk-Skip-Polling-Delay", "true")
	}
	if rep.stream != nil {
		h.Set("Content-Type", "application/octet-stream")
	} else if rep.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(b)))
	}
	w.WriteHeader(rep.status)
	switch {
	case r.Method == http.MethodHead:
	case rep.stream != nil:
		if err := rep.stream(w); err != nil {
			a.Log.Error("an answer was cut", "operation", r.operation.label(), "request", r.id128, "err", err)
			panic(http.ErrAbortHandler)
		}
	default:
		_, _ = w.Write(b) // the client is gone: nobody is left to tell
	}
	return rep.status
}

// encode is json.Marshal that leaves '<', '>' and '&' as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
