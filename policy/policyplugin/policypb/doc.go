// Package policypb is the wire format between Postern and a policy program, as protoc-gen-go and
// protoc-gen-go-grpc make it of policy.proto. Authors in Go use package policyplugin, which hides it; those in
// other languages begin with policy.proto.
package policypb

//go:generate protoc -I .. --go_out=.. --go_opt=paths=source_relative --go-grpc_out=.. --go-grpc_opt=paths=source_relative policypb/policy.proto
