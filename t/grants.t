# What a machine may lack: the ordinary sites serve, and one line says what to
# grant.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
$t->netmap('web.json', self => $web, peers => [$alice]);
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

# lacks(what, wrapper, line): nginx started by ${wrapper}.
sub lacks ($what, $wrapper, $line) {
    my $mark = $t->log_mark;

    $t->{as} = $wrapper;
    $t->run;
    is($t->http_get('host', 'http://127.0.0.1:8080/')->status, 200,
        "$what: the LAN's site serves");
    my @said = grep { /\[(?:error|emerg|alert|crit)\]/ }
        split /\n/, $t->log_since($mark);
    is(scalar(grep { $_ =~ $line } @said), 1, "$what: one line says what to grant")
        or diag(join "\n", @said);
    is(scalar(@said), 1, "$what: and nothing else") or diag(join "\n", @said);
    ok($t->stop, "$what: nginx stops");
    ok(Test::Tailnet::Process::until_true(5, sub { !$t->holder }),
        "$what: no tailnetd is left");
}

$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
}
events { }
http {
    server {
        tailnet_listen 80;
        listen 127.0.0.1:8080;
        location / { root %%TESTDIR%%/html; }
    }
}
EOC

lacks('no TUN device', ['unshare', '-m', '--propagation', 'private', 'sh', '-c',
    'mount -t tmpfs none /dev/net && exec "$@"', 'sh'],
    qr{/dev/net/tun is missing: grant the container the device \(--device /dev/net/tun\)});

# Who has no right needs user namespaces; here there may be none.
my (undef, undef, $uid, $gid) = getpwnam 'nobody';
chown $uid, $gid, $t->testdir, glob $t->testdir . '/*';
lacks('no user namespaces',
    ['python3', "$FindBin::Bin/lib/Test/Tailnet/no-userns.py", $uid, $gid],
    qr{user\.max_user_namespaces});

$t->done_testing;
