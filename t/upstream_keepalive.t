# Connections to nodes are kept and used again, and never for a node of another
# network that has the same address.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app ask_many);

my $t = Test::Tailnet->new;

# Two networks with the same addresses.
my $web = $t->nginx_node('web');
my $lab = $t->nginx_node('lab', addr => $web->{addr}, port => 41642);
my $alpha = $t->node('alpha');
my $omega = $t->node('omega', addr => $alpha->{addr});
$t->netmap('web.json', self => $web, peers => [$alpha]);
$t->netmap('lab.json', self => $lab, peers => [$omega],
    domain => 'lab.test');

# From nginx 1.29.7 it is on by default.
my (undef, $minor, $patch) = split /\./, $t->nginx_version;
my $no_keepalive = $minor * 1000 + $patch >= 29007 ? 'keepalive 0;' : '';

$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
tailnet_node lab {
    netmap       %%TESTDIR%%/lab.json;
    private_key  %%TESTDIR%%/lab.key;
    port         41642;
}
events { }
http {
    upstream none {
        tailnet_server web/alpha:8000;
        $no_keepalive
    }
    upstream after {
        tailnet_server web/alpha:8000;
        keepalive 4;
    }
    upstream before {
        keepalive 4;
        tailnet_server web/alpha:8000;
    }
    upstream least {
        least_conn;
        tailnet_server web/alpha:8000;
        keepalive 4;
    }
    upstream both {
        tailnet_server web/alpha:8000;
        tailnet_server lab/omega:8000;
        keepalive 8;
    }
    upstream both6 {
        tailnet_server web/[$alpha->{addr}[1]]:8000;
        tailnet_server lab/[$omega->{addr}[1]]:8000;
        keepalive 8;
    }
    upstream lan {
        server 127.0.0.1:8100;
        tailnet_server web/alpha:8000;
        keepalive 8;
    }
    server {
        listen 127.0.0.1:8080;
        location ~ ^/(?<up>\\w+)\$ {
            proxy_pass http://\$up;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
EOF
$t->run;
$t->start_wgpeer($alpha, peers => [$web]);
$t->start_wgpeer($omega, peers => [$lab]);
start_app($t, $_) for qw(alpha omega);
start_app($t, 'host', name => 'lan', port => 8100);

# connections(up, n): what was used for n requests: how many connections and
# requests at each application.
sub connections ($up, $n) {
    my (%conns, %requests);
    for (ask_many($t, 'host', "http://127.0.0.1:8080/$up", $n)) {
        my ($name, $conn) = split;
        $requests{$name}++;
        $conns{$name}{$conn} = 1;
    }
    return { map { ($_ => [scalar keys $conns{$_}->%*, $requests{$_}]) }
        keys %requests };
}

is_deeply(connections('none', 6), { alpha => [6, 6] },
    'without keepalive each request has a connection');
is_deeply(connections('after', 6), { alpha => [1, 6] }, 'with it, one');
is_deeply(connections('before', 6), { alpha => [1, 6] },
    'wherever the directive stands');
is_deeply(connections('least', 6), { alpha => [1, 6] }, 'least_conn too');
is_deeply(connections('both', 12), { alpha => [1, 6], omega => [1, 6] },
    'two networks, one address: one connection to each');
is_deeply(connections('both6', 12), { alpha => [1, 6], omega => [1, 6] },
    'IPv6 as well');
is_deeply(connections('lan', 8), { alpha => [1, 4], lan => [1, 4] },
    'beside a server of the LAN');

# A change of the netmap that leaves the node alone leaves its connection.
my @before = ask_many($t, 'host', 'http://127.0.0.1:8080/after', 1);
my $more = $t->node('more');
$t->netmap('web.json', self => $web, peers => [$alpha, $more]);
ok(Test::Tailnet::Process::until_true(3,
    sub { $t->ctl('status')->{stdout} =~ /more/ }), 'another netmap');
my @after = ask_many($t, 'host', 'http://127.0.0.1:8080/after', 2);
is((split ' ', $after[1])[1], (split ' ', $before[0])[1],
    'the connection is still the same');

# New workers have connections of their own.
ok($t->reload(drain => 5), 'a reload');
my ($first) = ask_many($t, 'host', 'http://127.0.0.1:8080/after', 1);
isnt((split ' ', $first)[1], (split ' ', $before[0])[1],
    'the new worker has a connection of its own');
is_deeply(connections('after', 3), { alpha => [1, 3] }, 'and keeps it');

$t->done_testing;
