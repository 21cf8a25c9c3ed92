# Nodes that refuse, are silent, or come back: nginx's own rules for the next
# server hold over the mesh.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app);

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my ($alpha, $beta, $hole, $off) = map { $t->node($_) } qw(alpha beta hole off);
$off = { %$off, online => 0 };
my $html = $t->testdir . '/html';
mkdir $html;
$t->write_file('html/busy', 'x' x (1 << 20));

sub netmap (@more) {
    $t->netmap('web.json', self => $web,
        peers => [$alpha, $beta, $hole, $off, @more]);
}
netmap;

$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    upstream refused {
        tailnet_server alpha:9;
        server 127.0.0.1:8100 backup;
    }
    upstream silent {
        tailnet_server hole:8000;
        tailnet_server alpha:8000 backup;
    }
    upstream nothing {
        tailnet_server alpha:9;
        tailnet_server beta:9;
    }
    upstream comeback {
        tailnet_server alpha:8000 fail_timeout=1s;
        tailnet_server beta:8000;
    }
    upstream patient {
        tailnet_server alpha:9 max_fails=3 fail_timeout=1m;
        tailnet_server beta:8000;
    }
    upstream busy {
        tailnet_server alpha:8001 max_conns=1;
        server 127.0.0.1:8100 backup;
    }
    upstream last {
        tailnet_server off:9;
        server 127.0.0.1:8100 down;
    }
    proxy_connect_timeout 300ms;
    server {
        listen 127.0.0.1:8080;
        location ~ ^/(?<up>\w+)$ {
            proxy_pass http://$up;
            add_header X-Upstream $upstream_addr always;
        }
        location /off {
            proxy_pass http://refused;
            proxy_next_upstream off;
        }
    }
}
EOF
$t->run;
$t->start_wgpeer($_, peers => [$web]) for $alpha, $beta, $hole;
my $app = start_app($t, 'alpha');
start_app($t, 'alpha', port => 8001, answer => "root $html; limit_rate 20k;");
start_app($t, 'beta');
start_app($t, 'host', name => 'lan', port => 8100);

sub asks ($up, @more) {
    return $t->http_get('host', "http://127.0.0.1:8080/$up", @more);
}
sub answers ($up, $name, $upstream, $what, @more) {
    my $r = asks($up, @more);
    like($r->body, qr/^$name /, $what) or diag($r->text);
    is($r->header('x-upstream'), $upstream, "$what: who was asked");
    return $r;
}
my ($a, $b, $lan) = qw(100.64.0.2 100.64.0.3 127.0.0.1:8100);

my $mark = $t->log_mark;
answers('refused', 'lan', "$a:9, $lan", 'refused: the backup');
like($t->log_since($mark),
    qr/\[error\].*connect\(\) failed \(111: Connection refused\)/,
    'the log says so');
answers('refused', 'lan', $lan, 'the node is left alone for a while');
ok($t->reload(drain => 5), 'a reload forgets');
answers('refused', 'lan', "$a:9, $lan", 'refused: a POST too',
    data => 'x' x 1000);
is(asks('off')->status, 502, 'proxy_next_upstream off');
is(asks('nothing')->status, 502, 'all refuse');

$t->link_down('hole');
my $r = answers('silent', 'alpha', "100.64.0.4:8000, $a:8000",
    'silence: the next');
cmp_ok($r->{time}, '<', 2, 'after the connect timeout');
$t->link_up('hole');

# A failure is remembered for fail_timeout.
my %seen;
$seen{(split ' ', asks('comeback')->body)[0]}++ for 1 .. 4;
is_deeply(\%seen, { alpha => 2, beta => 2 }, 'both are there');
$app->stop;
$mark = $t->log_mark;
my @asked = map { asks('comeback')->header('x-upstream') } 1 .. 4;
is(grep(/^$a/, @asked), 1, 'one request met the failure') or diag("@asked");
is(grep(/$b:8000$/, @asked), 4, 'all were answered');
is(() = $t->log_since($mark) =~ /upstream server temporarily disabled/g, 1,
    'the log says so once');
$app = start_app($t, 'alpha');
ok(Test::Tailnet::Process::until_true(5,
    sub { asks('comeback')->body =~ /^alpha / }), 'it comes back');

@asked = map { asks('patient')->header('x-upstream') } 1 .. 10;
is(grep(/^$a/, @asked), 3, 'max_fails=3') or diag("@asked");

# A server that is "down" is no other server.
is(asks('last')->header('x-upstream'), '100.64.0.5:9',
    'one that is offline is asked, since the others are down');

# Connections are counted over the changes of the netmap.
my $slow = $t->fetch('host', 'http://127.0.0.1:8080/busy');
ok($slow->wait_received(1, 10), 'an answer that takes its time');
answers('busy', 'lan', $lan, 'max_conns: the backup');
netmap($t->node('new'));
ok(Test::Tailnet::Process::until_true(5,
    sub { $t->ctl('status')->{output} =~ /new/ }), 'another netmap');
answers('busy', 'lan', $lan, 'max_conns: still the backup');
$slow->stop;
ok(Test::Tailnet::Process::until_true(10, sub {
    return asks('busy', timeout => 1)->header('x-upstream') eq "$a:8001";
}), 'a connection that ends is counted off');

$t->done_testing;
