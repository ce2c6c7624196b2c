package linkexport

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"github.com/postern-link/postern/export"
	"github.com/postern-link/postern/plugin/internal/handover"
)

func TestSetup(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("0123456789abcdef\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret, token, ca, cert, key := file("secret"), file("token"), file("ca"), file("cert"), file("key")
	t.Setenv("STATE_DIRECTORY", "/var/lib/postern")
	for _, tt := range []struct {
		name, corefile string
		want           []export.Config
		err            string
	}{
		{"otlp", "linkexport siem {\notlp https://otel.example\n}", []export.Config{{
			Name: "siem", Kind: export.OTLP, URL: "https://otel.example/v1/logs", Flows: true, Audit: true, Queue: export.DefaultQueue,
			Position: "/var/lib/postern/export-siem.position",
		}}, ""},
		{"all of a webhook", "linkexport siem {\nsend audit flows\nsecret " + secret + "\ntoken " + token + "\ntls_ca " + ca + "\ntls " + cert + " " + key +
			"\nqueue 512\nposition /srv/p\nwebhook http://10.0.0.1/in\ninsecure\n}", []export.Config{{
			Name: "siem", Kind: export.Webhook, URL: "http://10.0.0.1/in", Flows: true, Audit: true, Queue: 512,
			Secret: secret, Token: token, CA: ca, Cert: cert, Key: key, Position: "/srv/p",
		}}, ""},
		{"two", "linkexport A {\notlp http://127.0.0.1:4318\nsend flows\n}\nlinkexport b {\nwebhook https://b.example/\nsend audit\n}", []export.Config{
			{Name: "a", Kind: export.OTLP, URL: "http://127.0.0.1:4318/v1/logs", Flows: true, Queue: export.DefaultQueue},
			{Name: "b", Kind: export.Webhook, URL: "https://b.example/", Audit: true, Queue: export.DefaultQueue, Position: "/var/lib/postern/export-b.position"},
		}, ""},
		{"no address", "linkexport siem", nil, `receiver siem has no address; add the line "otlp URL" or "webhook URL"`},
		{"no name", "linkexport {\notlp https://x\n}", nil, "exactly 1"},
		{"both", "linkexport siem {\notlp https://x\nwebhook https://x\n}", nil, "Testfile:3 - linkexport: receiver siem is given as otlp at Testfile:2"},
		{"name twice", "linkexport siem {\notlp https://x\n}\nlinkexport SIEM {\notlp https://y\n}", nil, "Testfile:4 - linkexport: receiver siem is given already at Testfile:1"},
		{"position twice", "linkexport a {\notlp https://x\nposition /p\n}\nlinkexport b {\notlp https://y\nposition /p\n}", nil, "Testfile:7 - linkexport: /p is where receiver a has its position, at Testfile:3"},
		{"position that is another's default", "linkexport a {\notlp https://x\nposition /var/lib/postern/./export-b.position\n}\nlinkexport b {\notlp https://y\n}", nil,
			"Testfile:5 - linkexport: /var/lib/postern/export-b.position is where receiver a has its position, at Testfile:3"},
		{"position where another is written", "linkexport a {\notlp https://x\nposition /p.new\n}\nlinkexport b {\notlp https://y\nposition /p\n}", nil,
			"Testfile:7 - linkexport: /p is where receiver a has its position, at Testfile:3"},
		{"C02 unknown property", "linkexport siem {\nkafka x\n}", nil, `unknown property "kafka"; known are otlp, webhook, send, queue, secret, token, tls_ca, tls, insecure, position`},
		{"C03 property twice", "linkexport siem {\nsend flows\nsend audit\n}", nil, "send is given already at Testfile:2 and may be given once"},
		{"what is sent", "linkexport siem {\notlp https://x\nsend metrics\n}", nil, `unknown word "metrics"; allowed are flows, audit`},
		{"what is sent twice", "linkexport siem {\notlp https://x\nsend flows flows\n}", nil, "flows is given twice"},
		{"C09 queue", "linkexport siem {\notlp https://x\nqueue 10\n}", nil, `"10" is out of range; 512 to 1048576 is allowed`},
		{"queue of nothing", "linkexport siem {\notlp https://x\nsend audit\nqueue 1000\n}", nil, "queue is of flow records"},
		{"position of nothing", "linkexport siem {\notlp https://x\nsend flows\nposition /p\n}", nil, "position is of the audit record"},
		{"secret of otlp", "linkexport siem {\notlp https://x\nsecret " + secret + "\n}", nil, "Testfile:3 - linkexport: secret signs the bodies of a webhook"},
		{"C12 no such file", "linkexport siem {\notlp https://x\ntoken /nowhere/token\n}", nil, "Testfile:3 - linkexport: stat /nowhere/token"},
		{"C12 a directory", "linkexport siem {\notlp https://x\ntls_ca " + dir + "\n}", nil, "Testfile:3 - linkexport: " + dir + " is a directory"},
		{"plain http", "linkexport siem {\notlp http://siem.example/s3cret\n}", nil, "Testfile:2 - linkexport: otlp: plain http is for a loopback address"},
		{"C16 a password", "linkexport siem {\nwebhook https://s3cret:s3cret@x\n}", nil, `the URL has a user; use "token FILE"`},
		{"no URL", "linkexport siem {\nwebhook s3cret\n}", nil, "that is no URL"},
		{"insecure takes nothing", "linkexport siem {\nwebhook https://x\ninsecure yes\n}", nil, "1 argument given, none allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := caddy.NewTestController("dns", tt.corefile)
			err := setup(c)
			if err == nil && tt.err != "" { // what is known of all of them together
				draft, _ := handover.Of(c)
				_, err = draft.Config()
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			draft, err := handover.Of(c)
			if err != nil {
				t.Fatal(err)
			}
			config, err := draft.Config()
			if err != nil {
				t.Fatal(err)
			}
			for i := range tt.want {
				tt.want[i].Agent = "postern/" + caddy.AppVersion
				if i >= len(config.Exports) || config.Exports[i] != tt.want[i] {
					t.Errorf("got  %+v\nwant %+v", config.Exports, tt.want)
				}
			}
		})
	}
}
