# What nginx -t says about upstreams with a tailnet_server.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(needs => [qw(nginx module)]);
my $file = $t->write_file('file', '{}', 0600);
my $lab = 'tailnet_node lab { netmap %%TESTDIR%%/lab; '
    . 'private_key %%TESTDIR%%/lab; }';
$t->write_file('lab', '{}', 0600);

# check(lines, more): an upstream with these lines; what nginx -t answers.
sub check ($lines, $more = '') {
    return $t->test_config(<<"EOF");
tailnet_node web { netmap $file; private_key $file; }
$more
events { }
http {
    upstream app {
        $lines
    }
    server { listen 8080; location / { proxy_pass http://app; } }
}
EOF
}

# refused(lines, regex, what): ... at line 6, where the lines begin.
sub refused ($lines, $regex, $what, $more = '') {
    my $r = check($lines, $more);
    ok(!$r->{ok}, "$what is refused");
    like($r->{output}, qr/\[emerg\].*$regex.*test\.conf:6$/m,
        "$what: the message");
}

for my $lines (
    'tailnet_server gpu-box:80;',
    'tailnet_server gpu-box.example.ts.net:80;',
    'tailnet_server gpu-box.example.ts.net.:65535;',
    'tailnet_server tag:gpu:80;',
    'tailnet_server 100.64.0.2:80;',
    'tailnet_server [fd7a:115c:a1e0::2]:80;',
    'tailnet_server web/gpu-box:80;',
    'tailnet_server $host:80;',
    'tailnet_server a:80 weight=3 max_conns=9 max_fails=0 fail_timeout=1m;',
    'tailnet_server a:80 down; tailnet_server b:80 backup;',
    'tailnet_server a:80; server 127.0.0.1:80 backup;',
    'least_conn; tailnet_server a:80;',
    'tailnet_server a:80; keepalive 4;',
    'keepalive 4; tailnet_server a:80;',
    'least_conn; keepalive 4; tailnet_server a:80 backup; server 127.0.0.1;',
) {
    my $r = check($lines);
    ok($r->{ok}, $lines) or diag($r->{output});
    unlike($r->{output}, qr/\[warn\]/, "$lines no warning");
}

my $method =
    qr/balancing method of upstream "app" cannot be used beside "tailnet_serv/;
refused('tailnet_server a:80; zone app 64k;',
    qr/"zone" in upstream "app" cannot be used beside "tailnet_server"/,
    'zone');
refused('tailnet_server a:80; hash $uri;', $method, 'hash');
refused('tailnet_server a:80; hash $uri consistent;', $method,
    'consistent hash');
refused('tailnet_server a:80; ip_hash;', $method, 'ip_hash');
refused('tailnet_server a:80; random;', $method, 'random');
refused('tailnet_server a:80; random two;', $method, 'random two');
my $r = check('ip_hash; tailnet_server a:80;');
ok(!$r->{ok}, 'ip_hash before it is refused');
like($r->{output}, $method, 'with the same words');

my $port = qr/invalid port in "tailnet_server [^"]*": NAME:PORT is expected/;
refused("tailnet_server $_;", $port, "\"$_\"")
    for 'a', 'a:', 'a:0', 'a:65536', 'a:http', 'tag:gpu', '[fd7a::1]',
    'a:-1', ':80:';
my $name = qr/is neither the name of a node, nor "tag:NAME", nor a mesh/;
refused("tailnet_server $_:80;", $name, "\"$_\"")
    for '*', 'alice@example.com', 'group:ops', 'autogroup:member',
    'tag:', 'a_b!', 'web/100.64.0.0/10';
refused('tailnet_server :80;', qr/no name in "tailnet_server :80"/,
    'no name');
refused('tailnet_server web/:80;', qr{no name in "tailnet_server web/:80"},
    'no name after the node');
refused("tailnet_server a:80 $_;",
    qr/invalid parameter "\Q$_\E" of "tailnet_server"/, $_)
    for 'weight=0', 'weight=x', 'weight=', 'max_fails=x', 'max_conns=-1',
    'fail_timeout=x', 'resolve', 'backup=1', 'slow_start=1s';

refused('tailnet_server 100.64.0.0/10:80;',
    qr/invalid node name "100.64.0.0"/, 'a CIDR');
refused('tailnet_server lab/a:80;', qr/"lab"/, 'a node that is not defined');
refused('tailnet_server a:80;', qr/tailnet_server/,
    'no node where there are two', $lab);
$r = check('tailnet_server lab/a:80;', $lab);
ok($r->{ok}, 'one of two nodes') or diag($r->{output});

$r = check('tailnet_server $nothing:80;');
ok(!$r->{ok}, 'an unknown variable is refused');
like($r->{output}, qr/unknown "nothing" variable/, 'it is named');

$t->done_testing;
