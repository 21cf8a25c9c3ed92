# websocket.pl serve ADDRESS PORT: an echo server for tests, RFC 6455, text
# frames of less than 126 bytes.  Prints "open N" and "closed N" for its Nth
# connection, and ends with its standard input.
#
# websocket.pl connect ADDRESS PORT PATH: a client that sends a frame every
# 50 ms and waits for each to come back.  Prints "open" after the first,
# "refused STATUS" without an upgrade, and "closed" when it is over.

use v5.36;

use Digest::SHA qw(sha1_base64);
use IO::Select;
use IO::Socket::IP;

my ($what, $addr, $port, $path) = @ARGV;

$SIG{CHLD} = 'IGNORE';
$SIG{PIPE} = 'IGNORE';
$| = 1;
$what eq 'serve' ? serve() : talk();

sub serve () {
    my $server = IO::Socket::IP->new(LocalHost => $addr, LocalPort => $port,
        Listen => 16, ReuseAddr => 1) or die "$addr:$port: $@\n";
    my $select = IO::Select->new($server, \*STDIN);
    my $count = 0;

    say 'ready';
    while (1) {
        for my $fh ($select->can_read) {
            return if $fh == \*STDIN && !sysread STDIN, my $buf, 256;
            next if $fh != $server;
            my $client = $server->accept or next;
            my $n = ++$count;
            if (!fork) {
                close $server;
                alarm 120;
                say "open $n";
                echo($client);
                say "closed $n";
                exit;
            }
        }
    }
}

sub head ($socket) {
    my $head = '';

    while ($head !~ /\r\n\r\n/) {
        sysread $socket, $head, 1, length $head or last;
    }
    return $head;
}

sub echo ($client) {
    my ($key) = head($client) =~ /^Sec-WebSocket-Key: (\S+)/mi or return;
    my $accept = sha1_base64($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11')
        . '=';

    syswrite $client, "HTTP/1.1 101 Switching Protocols\r\n"
        . "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        . "Sec-WebSocket-Accept: $accept\r\n\r\n";
    while (defined(my $text = frame($client))) {
        syswrite $client, pack('CC', 0x81, length $text) . $text or return;
    }
}

# frame(socket): the text of the next, undef at the end.
sub frame ($socket) {
    my ($op, $len) = unpack 'CC', take($socket, 2) // return undef;
    return undef if $op != 0x81;
    my $mask = $len & 0x80 ? take($socket, 4) // return undef : '';
    my $text = take($socket, $len & 0x7f) // return undef;
    return $mask eq '' ? $text
        : $text ^. substr $mask x (1 + length($text) / 4), 0, length $text;
}

sub take ($socket, $len) {
    my $data = '';

    while (length $data < $len) {
        sysread $socket, $data, $len - length $data, length $data
            or return undef;
    }
    return $data;
}

sub talk () {
    my $socket = IO::Socket::IP->new(PeerHost => $addr, PeerPort => $port,
        Timeout => 5) or die "$addr:$port: $@\n";

    syswrite $socket, "GET $path HTTP/1.1\r\nHost: $addr\r\n"
        . "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        . "Sec-WebSocket-Version: 13\r\n"
        . "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    my ($status) = head($socket) =~ m{^HTTP/1.1 (\d+)} or die "no answer\n";
    return say "refused $status" if $status != 101;
    for (my $n = 1; ; $n++) {
        my $text = "frame $n";
        my $masked = $text ^. substr 'mask' x 8, 0, length $text;
        syswrite $socket, pack('CC', 0x81, 0x80 | length $text) . "mask"
            . $masked or last;
        last if (frame($socket) // '') ne $text;
        say 'open' if $n == 1;
        select undef, undef, undef, 0.05;
    }
    say 'closed';
}
