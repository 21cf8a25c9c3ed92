# A tailscaled peer to which IPv4 leads nowhere is reached directly by IPv6, and
# by the relay while UDP over IPv6 does not pass either.  A STUN server that has
# IPv6 alone is asked, and tells nginx its address.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

my $control = $t->start_control(six => 1, keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-alice', User => 'alice@example.com' }]);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOC");
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
EOC
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

# block(what): UDP that alice does not get out or in.
sub block ($what) {
    $t->nft('alice', <<"EOF");
table inet six { }
delete table inet six
table inet six {
    chain out {
        type filter hook output priority 0;
        oifname "eth0" $what meta l4proto udp drop;
    }
    chain in {
        type filter hook input priority 0;
        iifname "eth0" $what meta l4proto udp drop;
    }
}
EOF
}

block('meta nfproto ipv4');
$t->run;
my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');
my $web = $control->wait_node('web', 20) or BAIL_OUT('nginx has not joined');
my ($ip, $ip6) = map { s{/.*}{}r } $web->{Node}{Addresses}->@*;
ok($control->wait_node('web', 20, sub ($n) {
    grep { $_ eq '[fd77::1]:41641' } ($n->{Node}{Endpoints} // [])->@*
}), 'nginx tells its IPv6 endpoint');
is($t->wait_http('alice', "http://$ip/", 20)->status, 200, 'alice is served');

my $r = {};
Test::Tailnet::Process::until_true(20, sub {
    $r = $t->ctl('netcheck', 'web');
    return $r->{stdout} =~ /^ +2 +\S+ +.* ms/m;
});
like($r->{stdout}, qr/^  IPv6: +yes, \[fd77::1\]:41641$/m,
    'a server sees its IPv6 address') or diag($r->{output});
like($r->{stdout}, qr/^ +2 +\S+ +.* ms/m, 'and is measured');

# wait_six(): until both ends say so.
sub wait_six ($seconds) {
    return Test::Tailnet::Process::until_true($seconds, sub {
        my $peer = $t->peer_status('alice');
        return ($peer->{path} // '') eq 'direct'
            && $peer->{endpoint} =~ /^\[fd77::/
            && ($alice->peer('web')->{CurAddr} // '') eq '[fd77::1]:41641';
    });
}

my $loop = $t->start_reqloop('alice', url => "http://$ip:80/", parallel => 2,
    interval => 20, timeout => 25_000, size => 6);
ok(wait_six(30), 'directly, by IPv6')
    or diag(explain($t->peer_status('alice')));
like($alice->ping($ip, direct => 1), qr/ via \[fd77::1\]:41641 /,
    'tailscale ping');
like($t->ctl('ping', 'alice')->{output}, qr/ via .*\[fd77::/,
    'tailnetctl ping');
is($t->http_get('alice', "http://[$ip6]/")->status, 200, 'IPv6 in IPv6');

block('');
ok($t->wait_path('alice', 'relay', 30), 'UDP blocked: by the relay');
block('meta nfproto ipv4');
ok(wait_six(40), 'and directly again')
    or diag(explain($t->peer_status('alice')));
my $s = $loop->stop;
is($s->{failures}, 0, "of $s->{requests} requests none has failed")
    or diag(explain($s->{reasons}));

$t->done_testing;
