# A tailnet_server whose name has variables: looked up for each request, among
# the nodes of the netmap and nowhere else.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app ask_many);

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alpha = $t->node('alpha', tags => ['tag:gpu']);
my $beta = $t->node('beta');
my $gone = $t->node('gone');
my $old = $t->node('old');
my @peers = ($alpha, $beta, { %$gone, online => 0 },
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
    upstream mesh { tailnet_server $arg_to:8000; }
    upstream part { tailnet_server al$arg_to:8000; }
    upstream node { tailnet_server web/$arg_to:8000; }
    upstream kept { tailnet_server $arg_to:8000; keepalive 4; }
    upstream spare {
        tailnet_server $arg_to:8000;
        server 127.0.0.1:8100 backup;
    }
    server {
        listen 127.0.0.1:8080;
        location / { proxy_pass http://mesh; }
        location /part { proxy_pass http://part; }
        location /node { proxy_pass http://node; }
        location /spare { proxy_pass http://spare; }
        location /kept {
            proxy_pass http://kept;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
EOF
$t->run;
for my $peer ($alpha, $beta) {
    $t->start_wgpeer($peer, peers => [$web]);
    start_app($t, $peer->{name});
}
# What a request might wish to reach: this machine, at the same port.
start_app($t, 'host', name => 'trap');
start_app($t, 'host', name => 'lan', port => 8100);

sub asks ($to, $path = '') {
    $t->http_get('host', "http://127.0.0.1:8080/$path?to=$to");
}
sub answers ($to, $name, $what, $path = '') {
    my $r = asks($to, $path);
    like($r->body, qr/^$name /, $what) or diag($r->text);
}

answers('alpha', 'alpha', 'a short name');
answers('beta', 'beta', 'another');
answers('alpha.tailnet.test', 'alpha', 'an FQDN');
answers('ALPHA.Tailnet.test.', 'alpha', 'in any case, with a dot');
answers('pha', 'alpha', 'a name in two parts', 'part');
answers('beta', 'beta', 'with the name of the node before', 'node');

my $name = qr/is not the name of a node in the netmap/;
my %refused = (
    'nobody' => $name,
    '' => $name,
    'web' => qr/is the node of this nginx itself/,
    'web.tailnet.test' => qr/is the node of this nginx itself/,
    'old' => qr/is a node whose key has expired/,
    '100.64.0.2' => $name,
    'fd7a:115c:a1e0::2' => $name,
    '[fd7a:115c:a1e0::2]' => $name,
    '127.0.0.1' => $name,
    '::1' => $name,
    'localhost' => $name,
    'alpha.example.com' => $name,
    'alpha:8000' => $name,
    'web/alpha' => $name,
    'tag:gpu' => $name,
    'alpha.' . 'x' x 300 => $name,
);
for my $to (sort keys %refused) {
    my $mark = $t->log_mark;
    my $what = '"' . substr($to, 0, 30) . '"';
    is(asks($to)->status, 502, "$what: 502");
    my $said = qr/no peer for "tailnet_server \$arg_to:8000" in upstream "mesh"/;
    like($t->log_since($mark),
        qr/\[error\].*$said: "\Q$to\E" $refused{$to}, client:/,
        "$what: the log says why");
}

answers('beta', 'beta', 'a node where there is a spare', 'spare');
answers('nobody', 'lan', 'the spare where there is no node', 'spare');
answers('gone', 'lan', 'and where it is offline', 'spare');

my @conns = map { (split)[1] }
    ask_many($t, 'host', 'http://127.0.0.1:8080/kept?to=alpha&n=', 5);
is(@conns, 5, 'answers over kept connections');
is(keys %{ { map { $_ => 1 } @conns } }, 1, 'which are one');

# The next request follows the netmap.
$t->netmap('web.json', self => $web, peers => [
    { %$alpha, name => 'alef' }, $beta]);
ok(Test::Tailnet::Process::until_true(3,
    sub { asks('alef')->status == 200 }), 'a node got another name');
is(asks('alpha')->status, 502, 'and has lost the one before');

$t->done_testing;
