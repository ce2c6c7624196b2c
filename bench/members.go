//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// The members of the cluster that nodes share: processes of this program, on addresses of their own,
// with their disks below the benchmark's directory.
const (
	members    = 3
	clientPort = "2379"
	peerPort   = "2380"
)

// cluster is a running etcd.
type cluster struct {
	members []*role
	addrs   []string
}

// startMembers starts a cluster and waits until it answers.
func (b *bench) startMembers() (*cluster, error) {
	c := &cluster{}
	var all []string
	for i := range members {
		addr := b.net.dns.Addr().As4()
		addr[3] = byte(100 + i)
		c.addrs = append(c.addrs, fmt.Sprintf("%d.%d.%d.%d", addr[0], addr[1], addr[2], addr[3]))
		all = append(all, fmt.Sprintf("m%d=http://%s:%s", i, c.addrs[i], peerPort))
	}
	dir := filepath.Join(b.dir, fmt.Sprintf("etcd-%d", time.Now().UnixNano()))
	for i, addr := range c.addrs {
		r, err := b.startRole("etcd", fmt.Sprintf("m%d", i), addr, strings.Join(all, ","), filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			c.stop()
			return nil, err
		}
		c.members = append(c.members, r)
	}
	for i, r := range c.members {
		if err := r.expect("ready"); err != nil {
			c.members = append(c.members[:i], c.members[i+1:]...) // expect has ended it
			c.stop()
			return nil, fmt.Errorf("a member of etcd: %w", err)
		}
	}
	return c, nil
}

func (c *cluster) stop() {
	for _, r := range c.members {
		r.stop()
	}
}

// endpoints returns the URLs of the members, with spaces between, as linkstore takes them.
func (c *cluster) endpoints() string {
	var urls []string
	for _, a := range c.addrs {
		urls = append(urls, "http://"+a+":"+clientPort)
	}
	return strings.Join(urls, " ")
}

func (c *cluster) pids() []int {
	var pids []int
	for _, r := range c.members {
		pids = append(pids, r.cmd.Process.Pid)
	}
	return pids
}

// runMember is a member. It ends with its standard input, as all roles do.
func runMember(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("member: %q", args)
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster, c.LogLevel = args[0], args[3], args[2], "error"
	client, peer := url.URL{Scheme: "http", Host: args[1] + ":" + clientPort}, url.URL{Scheme: "http", Host: args[1] + ":" + peerPort}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	case <-time.After(30 * time.Second):
		return fmt.Errorf("no leader within 30 s")
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// measurePuts has the clients put one key of an endpoint's size each, again and again.
func (b *bench) measurePuts(endpoints string) (map[string]float64, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: strings.Fields(endpoints), DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	value := strings.Repeat("x", 600)
	return timed(b.seconds, func(worker, _ int) error {
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		defer cancel()
		_, err := c.Put(ctx, fmt.Sprintf("/bench/%d", worker), value)
		return err
	})
}
