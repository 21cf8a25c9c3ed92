# wireguard-go pulls files through nginx: either side begins the session, over
# IPv4 and over IPv6, with a preshared key and without.  Of these eight, four
# that have each of them twice pull 100 MB.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA;
use Test::More;
use Test::Tailnet;

use constant { SIZE => 100 << 20, SMALL => 5 << 20 };

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');

# Whoever has no endpoint of the other cannot begin.
my @peers;
for my $first (qw(web peer)) {
    for my $family (4, 6) {
        for my $secret (0, 1) {
            my $name = "$first$family" . ($secret ? 's' : '');
            push @peers, {
                $t->node($name)->%*,
                first => $first,
                family => $family,
                psk => $secret ? $t->psk : undef,
                file => (($first eq 'web') + ($family == 4) + $secret) % 2
                    ? 'big.bin' : 'small.bin',
                what => ($first eq 'web' ? 'nginx' : 'wireguard-go')
                    . " begins, IPv$family"
                    . ($secret ? ', preshared key' : ''),
            };
        }
    }
}

sub endpoint ($host, $family) {
    return $family == 4 ? $t->underlay($host) . ':41641'
        : '[' . $t->underlay6($host) . ']:41641';
}

$t->netmap('web.json', self => $web, peers => [map { {
    %$_, endpoints => $_->{first} eq 'web'
        ? [endpoint($_->{name}, $_->{family})] : [],
} } @peers]);
$t->write_file('web.psk', join('', map { "$_->{pub}\t$_->{psk}\n" }
    grep { $_->{psk} } @peers), 0600);

$t->write_config(<<'EOC');
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

# Bytes that no part of the file repeats.
mkdir $t->testdir . '/html';
my $file = $t->testdir . '/html/big.bin';
my $zeros = $t->write_file('zeros', '');
truncate $zeros, SIZE or die "$zeros: $!";
my $made = $t->run_in('host', 'openssl', 'enc', '-aes-128-ctr', '-nosalt',
    '-K', '0' x 32, '-iv', '0' x 32, '-in', $zeros, '-out', $file);
ok($made->{ok} && -s $file == SIZE, 'there is a big file')
    or diag($made->{output});
open my $big, '<:raw', $file or die "$file: $!";
read $big, my $part, SMALL or die "$file: $!";
$t->write_file('html/small.bin', $part);
my %size = ('big.bin' => SIZE, 'small.bin' => SMALL);
my %sha256 = map { $_ => Digest::SHA->new(256)
    ->addfile($t->testdir . "/html/$_")->hexdigest } keys %size;

$t->run;

sub wireguard () { $t->node_status->{wireguard} }

for my $peer (@peers) {
    my $wg = $t->start_wgpeer($peer, peers => [{
        %$web,
        endpoint => $peer->{first} eq 'peer'
            ? endpoint('host', $peer->{family}) : '',
        psk => $peer->{psk},
    }]);
    my $before = wireguard();

    if ($peer->{first} eq 'web') {
        isnt($t->http_get($peer->{name}, 'http://100.64.0.1/small.bin',
            timeout => 0.3)->status, 200,
            "$peer->{what}: there is no path before")
            if $peer->{family} == 4 && !$peer->{psk};
        my $ping = $t->ctl('ping', $peer->{name});
        ok($ping->{ok}, "$peer->{what}: a ping") or diag($ping->{output});
    }
    my $host = $peer->{family} == 4 ? '100.64.0.1' : '[fd7a:115c:a1e0::1]';
    my $got = $t->http_get($peer->{name}, "http://$host/$peer->{file}",
        timeout => 60);
    is($got->status, 200, "$peer->{what}: answered") or diag($got->text);
    is($got->sha256, $sha256{$peer->{file}},
        "$peer->{what}: the right bytes of $peer->{file}");
    is($wg->peer_status($web)->{endpoint}, endpoint('host', $peer->{family}),
        "$peer->{what}: over that path");
    my $after = wireguard();
    is($after->{handshakes_completed} - $before->{handshakes_completed}, 1,
        "$peer->{what}: one session");
    cmp_ok($wg->peer_status($web)->{rx_bytes}, '>',
        $size{$peer->{file}},
        "$peer->{what}: through the tunnel");
    $wg->stop;
    unlink $got->body_file;
}

my $end = wireguard();
is($end->{$_}, 0, "no $_") for qw(drop_auth drop_handshake drop_index
    drop_source drop_inner);

$t->done_testing;
