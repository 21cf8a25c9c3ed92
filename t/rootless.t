# Without any right: nginx of an ordinary user makes its mesh in a user namespace.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $bob = $t->node('bob', user => 'bob@example.com');
$t->netmap('web.json', self => $web,
    peers => [$alice, { %$bob, endpoints => [] }]);
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    upstream far { tailnet_server alice:8000; }
    server {
        tailnet_listen 80;
        location / {
            tailnet_acl accept alice@example.com;
            tailnet_headers on;
            add_header X-User $tailnet_user;
            root %%TESTDIR%%/html;
        }
        location = /far { proxy_pass http://far/echo; }
    }
}
EOF
$t->run_as('nobody');
$t->run;
$t->start_wgpeer($_, peers => [$web]) for $alice, $bob;
$t->start_httpd('alice', addr => '100.64.0.2', port => 8000);

sub asks ($who, $url, $status, $what) {
    my $r = $t->http_get($who, $url);
    is($r->status, $status, $what) or diag($r->text);
    return $r;
}

sub both ($when) {
    is(asks('alice', 'http://100.64.0.1/', 200, "alice $when")
            ->header('x-user'), 'alice@example.com', "by her name $when");
    asks('alice', 'http://[fd7a:115c:a1e0::1]/', 200, "over IPv6 $when");
    asks('bob', 'http://100.64.0.1/', 403, "bob is refused $when");
    asks('bob', 'http://100.64.0.1/far', 200, "an upstream on the mesh $when");
}

both('at first');

# Nobody of them is more than nobody, in the machine's eyes.
my $nobody = getpwnam 'nobody';
my @pids = ($t->master, $t->holder, $t->engine($t->holder));
is(scalar(grep { (stat "/proc/$_")[4] == $nobody
        || Test::Tailnet::Process::slurp("/proc/$_/status")
        =~ /^Uid:\s+$nobody\s+$nobody\s/m } @pids), 3,
    'nginx, holder and engine are nobody\'s');
is(scalar(grep { Test::Tailnet::Process::slurp("/proc/$_/status")
        =~ /^CapEff:\s+0+$/m } @pids), 3, 'without a capability');

ok($t->reload, 'nginx reloads');
both('after the reload');

$t->expect_alert(qr/engine \d+ was killed by signal 9/);
kill KILL => $t->engine($t->holder);
both('after the engine was killed');

my $old = $t->holder;
kill KILL => $old;
both('without a holder');
ok($t->reload, 'nginx reloads again');
my $new = $t->holder;
ok($new && $new != $old, 'a new holder has come');
both('after that');
ok($t->ctl('status')->{ok}, 'which answers');

$t->done_testing;
