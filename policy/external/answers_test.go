package external

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// FuzzAnswer: G05. Whatever bytes a program sends, what allows has said so and nothing else, and no text or time is
// beyond its bound.
func FuzzAnswer(f *testing.F) {
	for _, m := range []proto.Message{
		&policypb.AuthorizeResponse{}, &policypb.AuthorizeResponse{Allow: &policypb.Allow{ValidForMs: 1 << 31}},
		&policypb.AuthorizeResponse{Deny: &policypb.Deny{Reason: "no\x00\u202e"}},
		&policypb.AuthorizeResponse{Allow: &policypb.Allow{}, Deny: &policypb.Deny{}},
		&policypb.ReviewResponse{Approve: &policypb.Approve{}, Wait: &policypb.Wait{}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a policypb.AuthorizeResponse
		if proto.Unmarshal(b, &a) == nil {
			got, err := judged(&a)
			if got.allow && (err != nil || a.Allow == nil || a.Deny != nil) || got.valid > maxValid || len(got.reason) > maxReason {
				t.Errorf("%v: %+v, %v", &a, got, err)
			}
		}
		var r policypb.ReviewResponse
		if proto.Unmarshal(b, &r) == nil {
			got, err := decided(&r)
			if got.State == link.Approved && (err != nil || r.Approve == nil || r.Reject != nil || r.Wait != nil) || len(got.Reason) > maxReason {
				t.Errorf("%v: %+v, %v", &r, got, err)
			}
		}
		_, _, _ = parseStdio(b)
	})
}

// TestAnswersAreBounded: what is kept is as much as it may be, and no longer than it may be.
func TestAnswersAreBounded(t *testing.T) {
	var a answers
	now := time.Now()
	for i := range 3 * maxAnswers {
		a.put(key{endpoint: &link.Endpoint{}, name: link.Name(rune(i))}, answer{allow: true, valid: time.Minute}, now)
	}
	if n := len(a.now) + len(a.old); n > 2*maxAnswers {
		t.Errorf("%d are kept", n)
	}
	a.put(key{}, answer{allow: true, valid: time.Minute}, now)
	a.put(key{judged: true}, answer{allow: true}, now)
	if _, ok := a.get(key{}, now.Add(59*time.Second)); !ok {
		t.Error("it isn't kept")
	}
	if _, ok := a.get(key{}, now.Add(time.Minute)); ok {
		t.Error("it is kept too long")
	}
	if _, ok := a.get(key{judged: true}, now); ok {
		t.Error("what holds once is kept")
	}
}
