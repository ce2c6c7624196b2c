package armapi

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
)

// maxBody bounds the body of a request.
const maxBody = 1 << 20

// decode reads the body into v, a pointer to a struct: one JSON object, whose unknown fields are ignored.
// The error is the answer: 413, 415 or 400, naming the field where there is one.
func (r *request) decode(v any) error {
	b, err := r.body()
	if err != nil {
		return err
	}
	if err := checkJSON(b); err != nil {
		return fail(http.StatusBadRequest, "InvalidRequestContent", "The request content is invalid: %v.", err)
	}
	err = json.Unmarshal(b, v)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fail(http.StatusBadRequest, "InvalidRequestFormat", "The field %s has the wrong type: %s.", quote(wrong.Field), wrong.Value)
	}
	if err != nil {
		return fail(http.StatusBadRequest, "InvalidRequestFormat", "The request content is invalid: %s", sentence(clean(err.Error(), 200)))
	}
	return nil
}

// body reads the whole body, which must say that it is JSON: a web page can't send that without being asked.
func (r *request) body() ([]byte, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := params["charset"]
	if err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") || r.Header.Get("Content-Encoding") != "" {
		return nil, fail(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "The content type must be application/json in UTF-8.")
	}
	return r.read(maxBody)
}

// read reads the whole body, however it is written.
func (r *request) read(most int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, most))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, fail(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "The request content has more than %d bytes.", most)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fail(http.StatusRequestTimeout, "RequestTimeout", "The request content took too long.")
	}
	if err != nil {
		return nil, fail(http.StatusBadRequest, "InvalidRequestContent", "The request content ended early.")
	}
	return b, nil
}
