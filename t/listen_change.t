# Parameters of tailnet_listen and the number of workers change by a reload.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
$t->netmap('web.json', self => $web, peers => [$alice]);
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

sub config ($workers, $parameters = '') {
    $t->write_config(<<"EOF");
worker_processes $workers;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80 $parameters;
        tailnet_acl accept *;
        root %%TESTDIR%%/html;
    }
}
EOF
}

sub sockets (@args) { $t->ctl('exec', 'web', '--', 'ss', '-Htn', @args)->{stdout} }

# One request a worker at the least.
sub served () {
    return scalar grep {
        $t->http_get('alice', 'http://100.64.0.1/', timeout => 2)->status == 200
    } 1 .. 12;
}

config(2);
$t->run;
$t->start_wgpeer($alice, peers => [$web]);
$t->wait_http('alice', 'http://100.64.0.1/');

# Workers, parameters, sockets of each family.
for my $case (
    [2, 'reuseport', 2],
    [3, 'reuseport', 3],
    [1, 'reuseport', 1],
    [2, '', 1],
    [2, 'reuseport deferred', 2],
    [2, '', 1],
) {
    my ($workers, $parameters, $n) = @$case;
    my $what = "$workers workers, \"$parameters\"";
    my $mark = $t->log_mark;

    config($workers, $parameters);
    ok($t->reload(drain => 5), $what);
    unlike($t->log_since($mark), qr/\[(?:error|warn)\]/, 'without a complaint');
    for my $family (4, 6) {
        is(() = sockets("-${family}l") =~ /^LISTEN/mg, $n,
            "sockets of IPv$family: $n");
    }
    is(served(), 12, 'all requests are served');
}

# Without "deferred" again, a connection need not say anything.
my $client = $t->spawn('alice', [$^X, '-MIO::Socket::IP', '-e', <<'EOF']);
$| = 1;
my $s = IO::Socket::IP->new(PeerHost => '100.64.0.1', PeerPort => 80)
    or die $@;
print "open\n";
sleep 1 while 1;
EOF
ok($client->wait_stdout(qr/open/, 5), 'a connection that says nothing');
unlike(sockets(qw(state syn-recv)), qr/:80\s/, 'is accepted');
$client->stop;

$t->done_testing;
