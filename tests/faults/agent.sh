# An agent whose prompts are shell: each is run, then its turn is over. It notes each number in a file of its
# workspace before it says it: so what it said is known, whatever becomes of it.
n=0
text() { echo "{\"type\":\"text\",\"text\":\"$1\"$2}"; }
# How many numbers more, how many seconds after each, and what else is in each line.
speak() {
    last=$((n + $1))
    while [ $n -lt $last ]; do
        n=$((n + 1))
        echo $n >>said
        text "t$n " "$3"
        [ "$2" = 0 ] || sleep "$2"
    done
}
# As many numbers, without a pause, in lines of about so many bytes.
flood() { speak "$1" 0 ",\"pad\":\"$(letters "$2")\""; }
# The next number, in a line of exactly so many bytes.
speak_in() {
    n=$((n + 1))
    echo $n >>said
    line_of "$1" "t$n "
}
line_of() {
    begin="{\"type\":\"text\",\"text\":\"$2\",\"pad\":\""
    printf %s "$begin"
    letters $(($1 - ${#begin} - 2))
    echo '"}'
}
# What is no line of any dialect, and what few take.
nonsense() {
    letters 1000000000
    echo
    line_of 8388609 never
    printf '\377\376 \300\257\n\0\0\0\n\n[]\n{"type":"text"}\n'
    printf '%s\n' '{"type":"text","text":"\ud800"}'
    head -c 2000000 /dev/urandom
    echo
    printf '%s\n' '{"type":"tool_use","id":"nul","tool":"a\u0000b","input":{"a\u0000":"\u0000"}}'
    printf '%s\n' '{"type":"tool_result","id":"nul","output":"\u0000"}'
}
# Waits for a file that the test makes.
await() { until [ -e "$1" ]; do sleep 0.05; done; }
# So many times the letter x.
letters() { head -c "$1" /dev/zero | tr '\0' x; }
while read -r line; do
    prompt=${line#*'"prompt":"'}
    eval "${prompt%%'"'*}"
    echo '{"type":"done","stop_reason":"end_turn"}'
done
