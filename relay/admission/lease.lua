-- Takes a place of a caller for one stream. The caller's places are a sorted set: a member for each stream, scored by the time
-- until which its relay has it.
-- KEYS: the caller's places
-- ARGV: the most places, for how many milliseconds a place is taken, the stream's name
-- Returns 1 where there was a place, else 0; and how many are taken now.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local taken = redis.call('ZCARD', KEYS[1])
if taken >= tonumber(ARGV[1]) then return {0, taken} end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {1, taken + 1}
