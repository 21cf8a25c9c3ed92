# Servers of an upstream that are nodes of the mesh: by name, FQDN, tag and
# address; who is left out, and what the log says then.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app ask_many);

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alpha = $t->node('alpha', tags => ['tag:gpu']);
my $beta = $t->node('beta', tags => ['tag:gpu']);
my $gone = $t->node('gone', tags => ['tag:gpu']);
my $six = $t->node('six', addr => ['fd7a:115c:a1e0::66']);
my $old = $t->node('old', tags => ['tag:gpu']);
my @peers = ($alpha, $beta, { %$gone, online => 0 }, $six,
    { %$old, key_expiry => '2020-01-01T00:00:00Z' });
$t->netmap('web.json', self => $web, peers => \@peers);

$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    upstream short   { tailnet_server alpha:8000; }
    upstream fqdn    { tailnet_server Alpha.tailnet.test.:8000; }
    upstream addr    { tailnet_server 100.64.0.3:8000; }
    upstream addr6   { tailnet_server [fd7a:115c:a1e0::3]:8000; }
    upstream six     { tailnet_server six:8000; }
    upstream node    { tailnet_server web/alpha:8000; }
    upstream tag     { tailnet_server tag:gpu:8000; }
    upstream least   { least_conn; tailnet_server tag:gpu:8000; }
    upstream weight  {
        tailnet_server alpha:8000 weight=3;
        tailnet_server beta:8000;
    }
    upstream down    {
        tailnet_server alpha:8000 down;
        tailnet_server beta:8000;
    }
    upstream unknown { tailnet_server nobody:8000; }
    upstream noaddr  { tailnet_server 100.64.0.99:8000; }
    upstream notag   { tailnet_server tag:none:8000; }
    upstream self    { tailnet_server web:8000; }
    upstream expired { tailnet_server old:8000; }
    upstream lone    { tailnet_server gone:8000; }
    upstream offline {
        tailnet_server gone:8000;
        server 127.0.0.1:8100 backup;
    }
    upstream missing {
        tailnet_server nobody:8000;
        server 127.0.0.1:8100 backup;
    }
    upstream mixed {
        server 127.0.0.1:8100;
        tailnet_server alpha:8000;
    }
    server {
        listen 127.0.0.1:8080;
        location ~ ^/(?<up>\w+)$ {
            proxy_pass http://$up;
            proxy_connect_timeout 300ms;
            proxy_next_upstream_tries 1;
            add_header X-Upstream $upstream_addr always;
        }
    }
}
EOF
$t->run;
for my $peer ($alpha, $beta, $six) {
    $t->start_wgpeer($peer, peers => [$web]);
    start_app($t, $peer->{name});
}
start_app($t, 'host', name => 'lan', port => 8100);

sub asks ($up) { $t->http_get('host', "http://127.0.0.1:8080/$up") }

sub answers ($up, $name, $what) {
    my $r = asks($up);
    like($r->body, qr/^$name /, $what) or diag($r->text);
    return $r;
}

my %at = (
    short => ['alpha', '100.64.0.2:8000', 'by short name'],
    fqdn => ['alpha', '100.64.0.2:8000', 'by FQDN, with dot and capital'],
    addr => ['beta', '100.64.0.3:8000', 'by IPv4 address'],
    addr6 => ['beta', '[fd7a:115c:a1e0::3]:8000', 'by IPv6 address'],
    six => ['six', '[fd7a:115c:a1e0::66]:8000', 'a node with IPv6 only'],
    node => ['alpha', '100.64.0.2:8000', 'with the name of the node before'],
);
for my $up (sort keys %at) {
    my ($name, $addr, $what) = $at{$up}->@*;
    my $r = answers($up, $name, $what);
    is($r->header('x-upstream'), $addr, "$what: the address");
}

# count(up, n): how many of n requests each application answered.
sub count ($up, $n) {
    my %n;
    $n{(split)[0]}++
        for ask_many($t, 'host', "http://127.0.0.1:8080/$up", $n);
    return \%n;
}
is_deeply(count('tag', 10), { alpha => 5, beta => 5 },
    'a tag is all its nodes, less what is offline or expired');
is_deeply(count('least', 10), { alpha => 5, beta => 5 }, 'least_conn');
is_deeply(count('weight', 12), { alpha => 9, beta => 3 }, 'weights');
is_deeply(count('down', 6), { beta => 6 }, '"down" gets nothing');
is_deeply(count('mixed', 6), { lan => 3, alpha => 3 },
    'a server of the LAN takes turns with a node');
is_deeply(count('offline', 3), { lan => 3 },
    'the backup stands in for a node that is offline');
is_deeply(count('missing', 3), { lan => 3 },
    'and for one that is not in the netmap');

# refused(up, why): 502, why in the log once, and one line for each request.
sub refused ($up, $why) {
    my $mark = $t->log_mark;

    is(asks($up)->status, 502, "$up: 502");
    is(asks($up)->status, 502, "$up: 502 again");
    my $log = $t->log_since($mark);
    my @why = $log =~ /^(.*\[warn\].* upstream "$up".*)$/mg;
    is(@why, 1, "$up: the log says why, once") or diag($log);
    like($why[0] // '', $why, "$up: it is true");
    my @lines = $log =~ /^.*\[error\].*$/mg;
    is(@lines, 2, "$up: and one line for each request") or diag($log);
}
refused('unknown', qr/"nobody" is not the name of a node in the netmap/);
refused('noaddr', qr/"100.64.0.99" is the address of no node in the netmap/);
refused('notag', qr/"tag:none" is the tag of no node in the netmap/);
refused('self', qr/"web" is the node of this nginx itself/);
refused('expired', qr/"old" is a node whose key has expired/);

my $r = asks('lone');
is($r->status, 504, 'a node that is offline is asked where nothing is left');
is($r->header('x-upstream'), '100.64.0.4:8000', 'at its address');

# A node of that name comes.
my $mark = $t->log_mark;
my $nobody = $t->node('nobody');
$t->netmap('web.json', self => $web, peers => [@peers, $nobody]);
$t->start_wgpeer($nobody, peers => [$web]);
start_app($t, 'nobody');
ok(Test::Tailnet::Process::until_true(3,
    sub { asks('unknown')->status == 200 }), 'the name appears');
ok($t->wait_for_log(
    qr/\[notice\].*"tailnet_server nobody:8000" in upstream "unknown" has/,
    1, from => $mark), 'the log says so');

$t->done_testing;
