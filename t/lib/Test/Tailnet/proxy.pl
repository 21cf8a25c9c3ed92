# proxy.pl ADDRESS PORT [USER:PASSWORD]: an HTTP proxy for tests that knows
# CONNECT alone, and says "CONNECT HOST:PORT" or "refused" for each request.  It
# ends with its standard input.

use v5.36;

use IO::Select;
use IO::Socket::IP;
use MIME::Base64 qw(encode_base64);

my ($addr, $port, $user) = @ARGV;

my $server = IO::Socket::IP->new(LocalHost => $addr, LocalPort => $port,
    Listen => 128, ReuseAddr => 1) or die "$addr:$port: $@\n";
my $select = IO::Select->new($server, \*STDIN);

$SIG{CHLD} = 'IGNORE';
$| = 1;
say 'ready';

LOOP: while (1) {
    for my $fh ($select->can_read) {
        last LOOP if $fh == \*STDIN && !sysread STDIN, my $buf, 256;
        next if $fh != $server;
        my $client = $server->accept or next;
        my $pid = fork;
        if (defined $pid && !$pid) {
            close $server;
            serve($client);
            exit;
        }
        close $client;
    }
}

sub serve ($client) {
    my $head = '';

    while ($head !~ /\r\n\r\n/ && length $head < 65536) {
        sysread $client, $head, 1, length $head or return;
    }
    my ($to) = $head =~ m{^CONNECT (\S+) HTTP/1\.1\r\n} or return;
    my ($auth) = $head =~ /^Proxy-Authorization: Basic (\S+)\r$/m;
    if ($user && ($auth // '') ne encode_base64($user, '')) {
        say 'refused';
        syswrite $client, "HTTP/1.1 407 Proxy Authentication Required\r\n"
            . "Content-Length: 0\r\n\r\n";
        return;
    }
    say "CONNECT $to";
    my $target = IO::Socket::IP->new(PeerAddr => $to, Timeout => 5);
    if (!$target) {
        syswrite $client, "HTTP/1.1 502 Bad Gateway\r\n\r\n";
        return;
    }
    syswrite $client, "HTTP/1.1 200 Connection established\r\n\r\n";
    pass($client, $target);
}

sub pass (@ends) {
    my $both = IO::Select->new(@ends, \*STDIN);
    my %other = ($ends[0] => $ends[1], $ends[1] => $ends[0]);

    while (1) {
        for my $fh ($both->can_read) {
            my $n = sysread $fh, my $data, 65536 or return;
            my $to = $other{$fh} or return;
            for (my $sent = 0; $sent < $n; ) {
                $sent += syswrite($to, $data, $n - $sent, $sent) || return;
            }
        }
    }
}
