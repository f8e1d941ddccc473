import signal

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background job; the tests send themselves Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
