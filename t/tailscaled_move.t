# The underlay's addresses change under a download, those of a tailscaled peer
# first, then nginx's: the download goes on to its end, and the path becomes
# direct again, although nobody has told the other end.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA ();
use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

use constant SIZE => 6 << 20;

my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-alice', User => 'alice@example.com', Reusable => \1 }]);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/state;
    tags         tag:web;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        tailnet_acl accept alice\@example.com;
        root %%TESTDIR%%/html;
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
my $body = join '', map { pack('N', $_) x 1024 } 1 .. SIZE / 4096;
$t->write_file('html/big', $body);
my $sha = Digest::SHA::sha256_hex($body);

$t->run;
my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;

# at(name): the addresses of a host, as in text of an endpoint.
sub at ($name) {
    my $four = $t->underlay($name);
    my $n = $four =~ s/.*\.//r;
    return qr/(?:\Q$four\E|\[fd77::$n\]):/;
}

# wait_direct(seconds): until both say that they reach each other directly,
# where they are now.
sub wait_direct ($seconds) {
    my ($host, $peer) = (at('host'), at('alice'));
    my $begin = time;

    return Test::Tailnet::Process::until_true($seconds, sub {
        my $way = $t->peer_status('alice');
        return ($way->{path} // '') eq 'direct' && $way->{endpoint} =~ $peer
            && ($alice->peer('web')->{CurAddr} // '') =~ $host;
    }) ? time - $begin : undef;
}

is($t->wait_http('alice', "http://$ip/", 5)->status, 200, 'alice is served');
ok(defined wait_direct(10), 'directly')
    or diag(explain($t->peer_status('alice'), $alice->peer('web')));

for my $who (qw(alice host)) {
    my $loop = $t->start_reqloop('alice', url => "http://$ip:80/",
        parallel => 2, interval => 10, timeout => 25_000, size => 6);
    my $get = $t->fetch('alice', "http://$ip/big", rate => '600k',
        timeout => 60);
    ok($get->wait_received(200_000, 10), 'a download has begun');
    $t->readdress($who);
    my $seconds = wait_direct(40);
    ok(defined $seconds, "$who has moved: directly again")
        or diag(explain($t->peer_status('alice'), $alice->peer('web')));
    note(sprintf 'after %.1f s', $seconds // -1);
    my $r = $get->response;
    ok($r->ok, 'the download came to its end') or diag($r->text);
    is($r->sha256, $sha, 'whole and right');
    my $s = $loop->stop;
    is($s->{failures}, 0, "of $s->{requests} requests none has failed")
        or diag(explain($s->{reasons}));
    note("gap $s->{max_gap_ms} ms, slowest $s->{max_ms} ms");
}
ok($control->wait_node('web', 15), 'the control server has nginx again');
for my $type (qw(disco TSMP ICMP)) {
    like($alice->ping($ip, type => $type), qr/^pong from web /,
        "tailscale ping: $type");
}
like($t->ctl('ping', 'alice')->{output}, qr/^pong from .* via /,
    'tailnetctl ping');

$t->done_testing;
