# As many nodes as there may be: each has its network, netmap and snapshot, also
# after a reload and for another engine.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

use constant NODES => 64;

my $t = Test::Tailnet->new;

my @nodes = map { $t->nginx_node("n$_", port => 42000 + $_) } 1 .. NODES;
my $alice = $t->node('alice');
$t->netmap("$_->{name}.json", self => $_, peers => [$alice]) for @nodes;

my $blocks = join '', map { <<"EOF" } @nodes;
tailnet_node $_->{name} {
    netmap       %%TESTDIR%%/$_->{name}.json;
    private_key  %%TESTDIR%%/$_->{name}.key;
    port         $_->{port};
}
EOF
my $servers = join '', map { <<"EOF" } @nodes;
    server {
        tailnet_listen $_->{name}:80;
        tailnet_acl accept *;
        add_header X-Node \$tailnet_self_name;
        root %%TESTDIR%%/html;
    }
EOF
$t->write_config(<<"EOF");
worker_processes 2;
tailnet_engine binary=%%TAILNETD%%;
$blocks
events { worker_connections 1024; }
http {
$servers
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

sub running () {
    my $ok = Test::Tailnet::Process::until_true(20, sub {
        my $said = $t->ctl('--json', 'status')->{output};
        return (() = $said =~ /"state": ?"running"/g) == NODES;
    });
    unlike($t->read_log, qr/to the holder is lost/, 'no message is lost');
    return $ok;
}

$t->run;
ok(running(), 'all nodes run');

my $mark = $t->log_mark;
ok($t->reload(drain => 10), 'a reload');
unlike($t->log_since($mark), qr/no snapshot/, 'workers know all peers at once');

$t->expect_alert(qr/engine \d+ was killed by signal 9/);
ok($t->kill_engine, 'another engine');
ok(running(), 'it runs all nodes');

$t->start_wgpeer($alice, peers => [@nodes[0, -1]]);
for my $node (@nodes[0, -1]) {
    my $r = $t->http_get('alice', "http://$node->{addr}[0]/");
    is($r->header('x-node'), "$node->{name}.tailnet.test", "$node->{name} serves")
        or diag($r->text);
}

$t->done_testing;
