# Mistakes in the directives of http: "nginx -t" fails with one line that names
# the place and the reason; what looks like protection and is none gets a
# warning.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(needs => [qw(nginx module)]);

$t->netmap('web.json', self => $t->nginx_node('web'));
$t->nginx_node('lab');

sub node ($name) {
    return "tailnet_node $name { netmap %%TESTDIR%%/web.json; "
        . "private_key %%TESTDIR%%/$name.key; }";
}

my $one = node('web') . ' events { } ';
my $two = node('web') . ' ' . node('lab') . ' events { } ';

# result(text): of "nginx -t", the lines with a level, and the place that "#<"
# marks.
sub result ($text) {
    my ($before) = $text =~ /\A(.*?)#</s;
    my $r = $t->test_config($text);

    return ($r, [grep { /\[\w+\]/ } split /\n/, $r->{output}],
        defined $before
        ? sprintf '%s/test.conf:%d', $t->testdir, 1 + $before =~ tr/\n//
        : '');
}

sub bad ($name, $text, $regex) {
    my ($r, $said, $place) = result($text);

    subtest $name => sub {
        ok(!$r->{ok}, 'refused');
        is(@$said, 1, 'in one line') or diag($r->{output});
        like($said->[0] // '', $regex, 'with the reason');
        like($said->[0] // '', qr/\[emerg\].* in \Q$place\E\z/, 'and place');
    };
}

# In a server of one node: a line with a mistake; in a location; an upstream.
sub server ($line) {
    return "${one}http {\n server {\n  tailnet_listen 80;\n  $line #<\n }\n}\n";
}

sub location ($line) { server("location /x {\n  $line #<\n  }") }

sub upstream ($lines) {
    return "${one}http {\n upstream u {\n  $lines\n }\n"
        . " server { tailnet_listen 80; location / { proxy_pass http://u; } }\n"
        . "}\n";
}

# tailnet_listen.
sub listens ($line) { "http {\n server {\n  $line #<\n }\n}\n" }

bad('no node at all', 'events { } ' . listens('tailnet_listen 80;'),
    qr/no "tailnet_node" is defined for "tailnet_listen"/);
bad('unknown node', $one . listens('tailnet_listen lab:80;'),
    qr/unknown tailnet_node "lab" in "tailnet_listen"/);
bad('two nodes and no name', $two . listens('tailnet_listen 80;'),
    qr/"tailnet_listen" must name its node, there are 2 of them/);
bad('two nodes, one name left out', $two . "http {\n"
    . " server {\n  tailnet_listen web:80;\n  tailnet_listen 81; #<\n }\n}\n",
    qr/"tailnet_listen" must name its node, there are 2 of them/);
bad("port $_", $one . listens("tailnet_listen $_;"),
    qr/invalid port in "$_", \[NODE:\]PORT with a port from 1 to 65535/)
    for qw(0 65536 no web:0 web:http web: 80x);
bad('no node before the colon', $one . listens('tailnet_listen :80;'),
    qr/no node name in ":80"/);
bad("an address: $_", $one . listens("tailnet_listen $_:80;"),
    qr/invalid value "\Q$_\E:80", \[NODE:\]PORT is needed: it is on all addresses/)
    for qw(100.64.0.1 * [::]);
bad('duplicate', $one . listens("tailnet_listen 80;\n  tailnet_listen 80;")
        =~ s/80; #</80; #</r, qr/a duplicate listen 80/);
bad('duplicate, with the name once',
    $one . listens("tailnet_listen 80;\n  tailnet_listen web:80;"),
    qr/a duplicate listen 80/);
bad('two default servers', "${one}http {\n"
    . " server { tailnet_listen 80 default_server; }\n"
    . " server { tailnet_listen 80 default_server; } #<\n}\n",
    qr/a duplicate default server for 80/);
bad('different options', "${one}http {\n"
    . " server { tailnet_listen 80 backlog=5; }\n"
    . " server { tailnet_listen 80 backlog=6; } #<\n}\n",
    qr/duplicate listen options for 80/);
bad('unknown parameter', server('tailnet_listen 81 fast;'),
    qr/invalid parameter "fast"/);
bad("parameter $_", server("tailnet_listen 81 $_;"), qr/invalid value "$_"/)
    for qw(backlog=x backlog=0 rcvbuf=1q sndbuf= so_keepalive=maybe);
bad('ipv6only', server('tailnet_listen 81 ipv6only=on;'),
    qr/"ipv6only=on" is not for "tailnet_listen": it listens on all addresses/);
bad('bind', server('tailnet_listen 81 bind;'),
    qr/"bind" is not for "tailnet_listen": it always has a socket/);
bad("$_", server("tailnet_listen 81 $_;"),
    qr/"$_" is not for "tailnet_listen": \w/)
    for qw(setfib=1 fastopen=5 multipath accept_filter=dataready);
bad('no argument', server('tailnet_listen;'),
    qr/invalid number of arguments in "tailnet_listen"/);
SKIP: {
    skip 'nginx is without ssl', 1 if !$t->has('http_ssl_module');
    bad('ssl without certificate', $one . "http {\n"
        . " server { #<\n  tailnet_listen 443 ssl;\n }\n}\n",
        qr/no "ssl_certificate" is defined for the "listen ... ssl" directive/);
}

# tailnet_acl.
bad('neither accept nor reject', location('tailnet_acl allow tag:dev;'),
    qr/invalid value "allow", "accept" or "reject" is needed/);
bad('no selector', location('tailnet_acl accept;'),
    qr/invalid number of arguments in "tailnet_acl"/);
bad('unknown node', location('tailnet_acl accept lab/tag:dev;'),
    qr/unknown tailnet_node "lab" in "tailnet_acl"/);

my %selectors = (
    'tag:' => 'tag is empty',
    '"tag:a b"' => 'tag is empty or has a space, comma or control character',
    'user:' => 'login is empty',
    '@example.com' => 'one user and one domain expected around "@"',
    'alice@' => 'one user and one domain expected around "@"; a login name'
        . ' without a domain is "user:NAME"',
    'a@b@c' => 'one user and one domain expected around "@"',
    'autogroup:admin' => 'unknown autogroup: member, tagged, self or shared',
    'group:dev' => 'no control server tells a node who is in a group',
    'cap:example.com/cap/x' => 'capabilities are no selector: see $tailnet_caps',
    'all' => 'everybody is "*"',
    '100.64.0.0/33' => 'bad prefix length, or address bits are set behind it',
    '100.64.0.1/10' => 'bad prefix length, or address bits are set behind it',
    'fd7a::1/64' => 'bad prefix length, or address bits are set behind it',
    '100.64.0' => 'neither a known form nor an address nor a node name',
    'a_b' => 'neither a known form nor an address nor a node name',
    'Web/tag:dev' => 'what is before "/" is neither an address nor the name',
    'web/' => 'empty selector',
    '""' => 'empty selector',
    'web/local' => '"local" is nobody of a tailnet: no node before it',
);

for my $selector (sort keys %selectors) {
    my $shown = $selector =~ tr/"//dr;
    bad("selector $selector", location("tailnet_acl accept * $selector;"),
        qr/invalid selector "\Q$shown\E": \Q$selectors{$selector}\E/);
}

# A server of two networks.
sub both ($line) {
    return "${two}http {\n server {\n  tailnet_listen web:80;\n"
        . "  tailnet_listen lab:80;\n  $line #<\n }\n}\n";
}
bad('whose tag?', both('tailnet_acl accept tag:dev;'),
    qr{"tailnet_acl accept tag:dev" must say .*, as NODE/SELECTOR: its server});
bad('whose any?', both('tailnet_acl accept *;'),
    qr/"tailnet_acl accept \*" must say of which node's tailnet/);
bad('whose tag, inherited?', "${two}http {\n tailnet_acl accept tag:dev; #<\n"
    . " server { tailnet_listen web:80; tailnet_listen lab:80; }\n}\n",
    qr/"tailnet_acl accept tag:dev" must say of which node's tailnet/);
bad('whose limit?', both('tailnet_limit_req rate=1r/s for=tag:ci;'),
    qr/"tailnet_limit_req rate=1r\/s for=tag:ci" must say of which node's/);

# tailnet_limit_req, tailnet_limit_zone.
bad('no rate', location('tailnet_limit_req burst=5;'),
    qr/"tailnet_limit_req" directive needs a "rate=", as in "rate=20r\/s"/);
bad('no parameter', location('tailnet_limit_req;'),
    qr/invalid number of arguments in "tailnet_limit_req"/);
bad("limit $_", location("tailnet_limit_req $_ rate=1r/s;"),
    qr/invalid parameter "\Q$_\E" of "tailnet_limit_req"/)
    for qw(rate=5 rate=r/s rate=0r/s rate=1r/h rate=-1r/s rate=9999999r/s
    burst= burst=x burst=-1 delay zone=x);
bad('limit of nobody', location('tailnet_limit_req rate=1r/s for=;'),
    qr/"for=" in "tailnet_limit_req": empty selector/);
bad('limit of a group', location('tailnet_limit_req rate=1r/s for=group:a;'),
    qr/"for=group:a" in "tailnet_limit_req": no control server tells a node who/);
bad('limit twice for', location('tailnet_limit_req rate=1r/s for=a for=b;'),
    qr/has more than one "for="/);
bad('limit of an unknown node',
    location('tailnet_limit_req rate=1r/s for=lab/tag:a;'),
    qr/unknown tailnet_node "lab" in "tailnet_limit_req"/);
bad('nine limits', location(join "\n",
        map { "tailnet_limit_req rate=${_}r/s;" } 1 .. 8, 10)
        =~ s/(rate=10r\/s;) #</$1 #</r, qr/at most 8 limits/);
bad("zone $_", "${one}http {\n tailnet_limit_zone $_; #<\n}\n",
    qr/invalid size "$_" of "tailnet_limit_zone": at least \d+ bytes/)
    for qw(1k x 0 -1m);
bad('two zones', "${one}http {\n tailnet_limit_zone 1m;\n"
    . " tailnet_limit_zone 2m; #<\n}\n",
    qr/"tailnet_limit_zone" directive is duplicate/);

# tailnet_server.
bad('port of a server', upstream("tailnet_server gpu:$_; #<"),
    qr/invalid port in "tailnet_server gpu:$_": NAME:PORT is expected/)
    for qw(0 65536 http);
bad('no port', upstream('tailnet_server gpu; #<'),
    qr/invalid port in "tailnet_server gpu": NAME:PORT is expected/);
bad('no name', upstream('tailnet_server :80; #<'),
    qr/invalid port in|no name in "tailnet_server :80"/);
bad('no name behind the node', upstream('tailnet_server web/:80; #<'),
    qr{no name in "tailnet_server web/:80"});
bad("server $_", upstream("tailnet_server $_:80; #<"),
    qr/"\Q$_\E" in "tailnet_server .*" is neither the name of a node, nor "ta/)
    for qw(* a_b alice@example.com autogroup:member local tag:);
bad('unknown node of a server', upstream('tailnet_server lab/gpu:80; #<'),
    qr/unknown tailnet_node "lab" in "tailnet_server"/);
bad('invalid node of a server', upstream('tailnet_server Lab/gpu:80; #<'),
    qr/invalid node name "Lab" in "tailnet_server"/);
bad("server parameter $_", upstream("tailnet_server gpu:80 $_; #<"),
    qr/invalid parameter "$_" of "tailnet_server"/)
    for qw(weight=0 weight=x max_conns=x max_fails=x fail_timeout=x resolve);
bad('zone beside it', upstream("zone z 64k;\n  tailnet_server gpu:80; #<"),
    qr/"zone" in upstream "u" cannot be used beside "tailnet_server"/);
bad("balancer $_", upstream("$_;\n  tailnet_server gpu:80; #<"),
    qr/of upstream "u" cannot be used .* only round robin and "least_conn" can/)
    for 'ip_hash', 'hash $uri', 'random';

# The others.
bad('tailnet_status on', location('tailnet_status on;'),
    qr/invalid number of arguments in "tailnet_status"/);
bad('tailnet_headers maybe', location('tailnet_headers maybe;'),
    qr/invalid value "maybe" in "tailnet_headers" directive/);
bad('tailnet_headers twice',
    location("tailnet_headers on;\n  tailnet_headers on;"),
    qr/"tailnet_headers" directive is duplicate/);

# Where they do not belong.
my $not = qr/directive is not allowed here/;
bad('tailnet_node in http', "events { }\nhttp { tailnet_node web { } } #<\n",
    qr/"tailnet_node" $not/);
bad('tailnet_engine in http', "events { }\n"
    . "http { tailnet_engine level=info; } #<\n", qr/"tailnet_engine" $not/);
bad("$_ in main", "$_; #<\nevents { }\n", qr/"\w+" $not/)
    for 'tailnet_listen 80', 'tailnet_acl accept *', 'tailnet_headers on';
bad("$_ in http", "${one}http {\n $_; #<\n}\n", qr/"\w+" $not/)
    for 'tailnet_listen 80', 'tailnet_server gpu:80', 'tailnet_status';
bad("$_ in server", server("$_;"), qr/"\w+" $not/)
    for 'tailnet_server gpu:80', 'tailnet_status', 'tailnet_limit_zone 1m';
bad("$_ in location", location("$_;"), qr/"\w+" $not/)
    for 'tailnet_listen 81', 'tailnet_server gpu:80';
bad("$_ in upstream", upstream("$_; #<"), qr/"\w+" $not/)
    for 'tailnet_listen 81', 'tailnet_acl accept *';

# "return" comes before access rules.
sub returns ($name, $text, $warns) {
    my ($r, $said, $place) = result("${one}http {\n$text\n}\n");

    subtest $name => sub {
        ok($r->{ok}, 'accepted') or diag($r->{output});
        is(@$said, $warns ? 1 : 0, 'warnings') or diag($r->{output});
        like($said->[0] // '', qr/\[warn\]\ .*"return"\ in\ $warns\ answers
            \ before\ access\ rules\ are\ looked\ at:
            \ "tailnet_acl\ accept\ tag:dev"\ does\ not\ protect\ it
            \ in\ \Q$place\E\z/x, 'with place') if $warns;
    };
}

my $acl = 'tailnet_acl accept tag:dev;';
my $listen = 'tailnet_listen 80;';

returns('return and a rule', "server { $listen location /x {\n $acl #<\n"
    . " return 200 secret; } }", qr/location "\/x"/);
returns('the other way round', "server { $listen location /x {\n"
    . " return 301 /y;\n $acl #<\n } }", qr/location "\/x"/);
returns('in a server', "server { $listen server_name a.test;\n $acl #<\n"
    . ' return 200 secret; }', qr/server "a\.test"/);
returns('content below a rule', "server { $listen\n $acl #<\n"
    . ' location /x { return 200 secret; } }', qr/location "\/x"/);
returns('a redirect below a rule', "server { $listen $acl\n"
    . ' location = / { return 301 /app/; } }', '');
returns('a refusal below a rule', "server { $listen $acl\n"
    . ' location = /x { return 404; } }', '');
returns('a return on condition', "server { $listen location /x { $acl\n"
    . ' if ($arg_a) { return 404; } } }', '');
returns('a return without a rule', "server { $listen\n"
    . ' location /x { return 200 hello; } }', '');

$t->done_testing;
