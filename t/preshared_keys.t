# A file of preshared keys that is no use never means to go on without: a node
# that has none yet waits, one that had some goes on with them.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
my $bob = $t->node('bob');
my ($first, $second) = map { $t->psk } 1 .. 2;

my $config = <<'EOC';
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap          %%TESTDIR%%/web.json;
    private_key     %%TESTDIR%%/web.key;
    preshared_keys  %%TESTDIR%%/web.psk;
    port            41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        location / {
            tailnet_acl accept *;
            root %%TESTDIR%%/html;
        }
    }
}
EOC

sub secrets ($text) { $t->write_file('web.psk', $text, 0600) }

# as(psk): what alice gets in a session that begins now.
my $a;
sub as ($psk) {
    $a->remove_peer($web);
    $a->add_peer({ %$web, psk => $psk });
    return $t->http_get('alice', 'http://100.64.0.1/', timeout => 1)->status;
}

sub has_error ($regex) {
    return Test::Tailnet::Process::until_true(5,
        sub { $t->node_status->{error} =~ $regex });
}

$t->netmap('web.json', self => $web, peers => [$alice]);
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
secrets("# alice\n$alice->{pub} garbage\n");
$t->write_config($config);
$t->run;
$a = $t->start_wgpeer($alice, peers => [$web]);

my $bad = qr{web\.psk: line 2: };
ok(has_error($bad), 'a bad file is shown in status')
    or diag(explain($t->node_status));
like($t->read_log, qr/\[error\].*tailnetd.*$bad/, 'and in the log');
is($t->node_status->{state}, 'waiting', 'the node waits');
is(as(undef), 0, 'nobody is talked to without');
$t->netmap('web.json', self => $web, peers => [$alice, $bob]);
ok(!Test::Tailnet::Process::until_true(1,
    sub { $t->node_status->{peers}->@* }), 'a netmap does not change that');
like($t->node_status->{error}, $bad, 'nor the reason');

secrets("# alice\n$alice->{pub} $first\n");
ok($t->reload, 'mended');
ok(has_error(qr/\A\z/), 'there is no error');
is(as($first), 200, 'alice is served with her key');
is(as(undef), 0, 'and not without');

secrets("$alice->{pub} $second\n");
ok($t->reload, 'another key');
ok(Test::Tailnet::Process::until_true(5, sub { as($second) == 200 }),
    'is used');
is(as($first), 0, 'not the old one any more');

secrets("\n$alice->{pub} $first and more\n");
ok($t->reload, 'a bad file again');
ok(has_error($bad), 'is shown again');
is(as($second), 200, 'the keys before are used');
$t->netmap('web.json', self => $web, peers => [$bob]);
ok(Test::Tailnet::Process::until_true(5,
    sub { $t->node_status->{peers}->@* == 1 }),
    'a new netmap rules with them');
like($t->node_status->{error}, $bad, 'the error stays');
$t->netmap('web.json', self => $web, peers => [$alice, $bob]);

$t->write_config($config =~ s/^\s*preshared_keys.*\n//mr);
ok($t->reload, 'without preshared keys');
ok(has_error(qr/\A\z/), 'there is no error then');
is(as(undef), 200, 'alice is served without');
is(as($second), 0, 'and not with one');

unlink $t->testdir . '/web.psk' or die;
my $result = $t->test_config($config);
ok(!$result->{ok}, 'nginx -t wants the file to be there');
like($result->{output}, qr{preshared_keys: .*web\.psk.*test\.conf:5\b},
    'and says so');

$t->done_testing;
