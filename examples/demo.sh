#!/usr/bin/env bash
# The demo: a provider that reads the PROXY header, a Postern node with Corefile.example, and what to
# try. Everything is on loopback and below .demo; no root is needed. Ctrl-C ends what it started.
#
#   examples/demo.sh           print what to try and wait
#   examples/demo.sh --check   try it, say what came, 0 when all of it was right
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
dir=$root/.demo
name=contoso.database.windows.net
other=fabrikam.database.windows.net

for tool in curl dig openssl go; do
	command -v "$tool" >/dev/null || { echo "demo: $tool is missing (dig is in the package bind9-dnsutils)" >&2; exit 1; }
done

pids=()
cleanup() {
	trap - EXIT INT TERM
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap cleanup EXIT
trap 'exit 0' INT TERM

# --- certificates, provider, node
rm -rf "$dir"
mkdir -p "$dir"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -subj '/CN=Postern demo' \
	-addext "subjectAltName=DNS:$name" -keyout "$dir/key.pem" -out "$dir/ca.pem" 2>/dev/null
go build -o "$dir/provider" ./examples/provider
"$dir/provider" -listen 127.0.0.1:8444 -cert "$dir/ca.pem" -key "$dir/key.pem" >"$dir/provider.log" 2>&1 &
pids+=($!)
(cd "$dir" && exec "$root/postern" -conf "$root/Corefile.example") >"$dir/postern.log" 2>&1 &
pids+=($!)

# --- what to try: a command, the reason, and what its output must match ("exit N": how it must end)
dig="dig @127.0.0.1 -p 5300 +short"
curl="curl -sS -m 10 --cacert .demo/ca.pem"
try=(
	"$dig $name"
	"a host of network corp gets the private address"
	'127\.20\.0\.5'

	"$curl --resolve $name:8443:127.20.0.5 https://$name:8443/"
	"the connection reaches the provider, which knows the link ID and the client"
	'link ID +[0-9a-f]{8}'

	"$dig -b 127.0.66.1 $name"
	"network lab has no approved endpoint: the public address, as if there were none"
	'203\.0\.113\.10'

	"$curl --resolve $other:8443:127.20.0.5 https://$other:8443/"
	"REFUSED: another customer's name on this endpoint, reset before a byte reaches the provider"
	'exit (35|56)'

	"$curl --interface 127.0.66.1 --resolve $name:8443:127.20.0.5 https://$name:8443/"
	"REFUSED: the right name from a host that corp's endpoint doesn't allow"
	'exit (7|35|56)'

	"$curl --interface 127.0.66.1 --resolve $name:8443:127.20.1.5 https://$name:8443/"
	"REFUSED: lab's own endpoint, which nobody has approved"
	'exit (7|35|56)'

	"./postern backup -state .demo/postern.db | head -n 2"
	"the state, from the running node"
	'contoso-sql-corp'
)

# --- wait until the name is published: the provider has answered a probe
for _ in $(seq 100); do
	for pid in "${pids[@]}"; do
		if ! kill -0 "$pid" 2>/dev/null; then
			echo "demo: did not start:" >&2
			cat "$dir"/*.log >&2
			exit 1
		fi
	done
	if [[ $($dig +time=1 +tries=1 "$name" 2>/dev/null || true) == *127.20.0.5 ]]; then break; fi
	read -rt 0.1 <> <(:) || true
done

if [ "${1-}" = --check ]; then
	bad=0
	for ((i = 0; i < ${#try[@]}; i += 3)); do
		code=0
		out=$(bash -c "${try[i]}" 2>&1) || code=$?
		if [[ $out$'\n'"exit $code" =~ ${try[i + 2]} ]]; then
			echo "ok    ${try[i + 1]}"
		else
			bad=1
			printf 'WRONG %s\n%s\n%s\nexit %d, want %s\n' "${try[i + 1]}" "${try[i]}" "$out" "$code" "${try[i + 2]}"
		fi
	done
	# A refusal is a reset, which a client can't tell from an address where nothing is. The node can.
	for reason in name_denied source_denied not_approved; do
		for _ in $(seq 50); do
			if [[ $(<"$dir/postern.log") == *"reason=$reason "* ]]; then continue 2; fi
			read -rt 0.1 <> <(:) || true
		done
		bad=1
		echo "WRONG the node's log has no flow refused for $reason"
	done
	if [ $bad != 0 ]; then cat "$dir"/*.log; fi
	exit $bad
fi

cat <<-TEXT

	A provider and a Postern node are running, with Corefile.example. In another terminal, in
	$root:

TEXT
for ((i = 0; i < ${#try[@]}; i += 3)); do
	printf '  # %s\n  %s\n\n' "${try[i + 1]}" "${try[i]}"
done
echo "Logs are in .demo. Ctrl-C ends everything."
wait -n "${pids[@]}" || true
echo "demo: one of the two has ended:" >&2
cat "$dir"/*.log >&2
exit 1
