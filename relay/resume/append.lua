-- Append events to the copies of several streams' logs. Atomic, as a script; sent again it changes nothing.
--
-- KEYS  for each stream two: the Redis stream of its events; the hash of what is known about it
-- ARGV  the relay that has the streams; how long the events are kept, in ms; how long the hashes are kept, in ms;
--       then for each stream two: five words, which are the number of the oldest event that is kept, the number of the first event
--       below, and that of the last one, `open`, or where the stream is over `ok` or `failed`, and the caller; and the events,
--       with a blank line between two
-- An entry of the Redis stream: b these events, with the number of the last of them as its id (7-0), since what is done for an
--       entry costs more than what is done for an event; or o, after the last event: how the stream ended.
-- Returns for each stream whose copy does not end with the last event below its place among the streams, from 0 on, and the
-- number of the newest event that is stored, after which the relay goes on; or -1 where others have ended the stream. In one
-- string, with spaces between, and an empty one in the usual case: each value of an answer costs the relay as much as an event.
local owner, keep_events, keep_hash = ARGV[1], ARGV[2], ARGV[3]

local function append(stream, about, caller, first, number, newest, over, events)
    local known = redis.call('HMGET', about, 'last', 'over')
    local last, ended = tonumber(known[1]), known[2]
    if ended == 'broken' then return -1 end
    if not last or redis.call('EXISTS', stream) == 0 then
        -- Nothing is there yet. Or one of both is gone, as a Redis that is full may evict it: the relay begins anew.
        redis.call('DEL', stream)
        last, ended = first - 1, nil
    end
    if not ended then
        -- Where Redis has lost something, the relay begins with what is missing, or with the oldest event that it keeps. Where
        -- Redis has some of these events, as an answer was lost, it goes on after them.
        if number > last + 1 and number > first then return last end
        if number <= last and last < newest then return last end
        if last < newest then
            redis.call('XADD', stream, newest .. '-0', 'b', events)
            last = newest
        end
        if over ~= 'open' then
            redis.call('XADD', stream, (last + 1) .. '-0', 'o', over)
            redis.call('HSET', about, 'over', over)
        end
    end
    redis.call('XTRIM', stream, 'MINID', first .. '-0')
    redis.call('HSET', about, 'owner', owner, 'caller', caller, 'first', first, 'last', last)
    redis.call('PEXPIRE', stream, keep_events)
    redis.call('PEXPIRE', about, keep_hash)
    return last
end

local answers = {}
for i = 1, #KEYS, 2 do
    local words, events = ARGV[i + 3], ARGV[i + 4]
    local first, number, newest, over, caller = string.match(words, '^(%d+) (%d+) (%d+) (%a+) (.*)$')
    newest = tonumber(newest)
    local last = append(KEYS[i], KEYS[i + 1], caller, tonumber(first), tonumber(number), newest, over, events)
    if last ~= newest then
        answers[#answers + 1] = (i - 1) / 2
        answers[#answers + 1] = last
    end
end
return table.concat(answers, ' ')
